"""The function of a kernel: its nests and products one after another."""

from __future__ import annotations

from collections import Counter

from aidotnet_py.backends.kernel import Kernel, LoopNest, Product, collapsed
from aidotnet_py.backends.numpy.assembly.elements import declarations
from aidotnet_py.backends.numpy.assembly.forms import Form
from aidotnet_py.backends.numpy.assembly.nests import Nest
from aidotnet_py.backends.numpy.assembly.products import BLAS, SMALL_PRODUCTS, Multiplication
from aidotnet_py.backends.numpy.assembly.writer import Writer
from aidotnet_py.backends.rows import ByRows

__all__ = ["kernel_text"]


def kernel_text(kernel: Kernel, name: str) -> str:
    """Write a module with the function ``void name(void **arguments, int64_t part, int64_t parts)``.

    If the kernel has products, its arguments are followed by the addresses of the functions of `BLAS`, with the C
    interface and integers of 64 bits, and of those of `small_product_text` for each dtype of `SMALL_PRODUCTS`. If it
    goes by rows (`ByRows`), the function computes one of several parts of the rows, about equal and none of them empty;
    else it computes all.
    """
    writer, rows = Writer(), ByRows.of(kernel)
    for declaration in declarations():
        writer.line(declaration)
    nests = [n if isinstance(n, Product) else collapsed(n) for n in kernel.nests] if rows is None else rows.nests
    forms = {nest: Form.of(nest) for nest in nests if isinstance(nest, LoopNest)}
    functions = _write_functions(writer, name, [forms[n].nest for n in nests if n in forms], by_rows=rows is not None)
    writer.line(f"define void @{name}(ptr %table, i64 %part, i64 %parts) nounwind {{")
    writer.label("entry")
    functions_of_products = len(BLAS) + len(SMALL_PRODUCTS)
    for i in range(kernel.arguments + functions_of_products * any(isinstance(nest, Product) for nest in kernel.nests)):
        writer.line(f"  %e{i} = getelementptr ptr, ptr %table, i64 {i}")
        writer.line(f"  %p{i} = load ptr, ptr %e{i}")
    length = 0 if rows is None else rows.length
    for bound, part in (("%first", "%part"), ("%last", writer.value("add i64 %part, 1"))):
        edge = writer.value(f"mul i64 {part}, {length}")
        writer.line(f"  {bound} = udiv i64 {edge}, %parts")
    for nest in nests:
        if isinstance(nest, Product):
            Multiplication(writer, nest, kernel.arguments, by_rows=rows is not None).write()
        elif (function := functions.get(forms[nest].nest)) is not None:
            forms[nest].write_call(writer, function)
        else:
            Nest(writer, nest, by_rows=rows is not None).write()
    writer.line("  ret void\n}")
    return writer.text()


def _write_functions(writer: Writer, name: str, nests: list[LoopNest], *, by_rows: bool) -> dict[LoopNest, str]:
    """Write a function for each nest that is there several times; return their names."""
    names = {nest: f"{name}_{i}" for i, (nest, times) in enumerate(Counter(nests).items()) if times > 1}
    for nest, function in names.items():
        arguments = 1 + max(operand.argument for operand in nest.operands)
        parameters = ", ".join(f"ptr noalias %p{i}" for i in range(arguments))
        writer.line(f"define internal void @{function}({parameters}, i64 %first, i64 %last) noinline nounwind {{")
        writer.label("entry")
        Nest(writer, nest, by_rows=by_rows).write()
        writer.line("  ret void\n}")
    return names
