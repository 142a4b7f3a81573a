"""The function of a kernel: its nests and products one after another."""

from __future__ import annotations

from aidotnet_py.backends.kernel import Kernel, Product, collapsed
from aidotnet_py.backends.numpy.assembly.elements import declarations
from aidotnet_py.backends.numpy.assembly.nests import Nest
from aidotnet_py.backends.numpy.assembly.products import BLAS, Multiplication
from aidotnet_py.backends.numpy.assembly.writer import Writer
from aidotnet_py.backends.rows import ByRows

__all__ = ["kernel_text"]


def kernel_text(kernel: Kernel, name: str) -> str:
    """Write a module with the function ``void name(void **arguments, int64_t part, int64_t parts)``.

    If the kernel has products, its arguments are followed by the addresses of the functions of `BLAS`, with the C
    interface and integers of 64 bits. If it goes by rows (`ByRows`), the function computes one of several parts of the
    rows, about equal and none of them empty; else it computes all.
    """
    writer = Writer()
    for declaration in declarations():
        writer.line(declaration)
    count = kernel.arguments + len(BLAS) * any(isinstance(nest, Product) for nest in kernel.nests)
    parameters = ", ".join([*(f"ptr noalias %p{i}" for i in range(count)), "i64 %first", "i64 %last"])
    writer.line(f"define internal void @{name}_body({parameters}) noinline nounwind {{")
    writer.label("entry")
    rows = ByRows.of(kernel)
    for nest in kernel.nests if rows is None else rows.nests:
        if isinstance(nest, Product):
            Multiplication(writer, nest, kernel.arguments, by_rows=rows is not None).write()
        else:
            Nest(writer, collapsed(nest) if rows is None else nest, by_rows=rows is not None).write()
    writer.line("  ret void\n}")
    writer.line(f"define void @{name}(ptr %table, i64 %part, i64 %parts) nounwind {{")
    for i in range(count):
        writer.line(f"  %e{i} = getelementptr ptr, ptr %table, i64 {i}")
        writer.line(f"  %p{i} = load ptr, ptr %e{i}")
    length = 0 if rows is None else rows.length
    edges = [writer.value(f"mul i64 {part}, {length}") for part in ("%part", writer.value("add i64 %part, 1"))]
    first, last = (writer.value(f"udiv i64 {edge}, %parts") for edge in edges)
    arguments = ", ".join([*(f"ptr %p{i}" for i in range(count)), f"i64 {first}", f"i64 {last}"])
    writer.line(f"  call void @{name}_body({arguments})")
    writer.line("  ret void\n}")
    return writer.text()
