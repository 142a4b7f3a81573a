"""Nests in machine code do what their definition says, element by element, with the same bits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count, pairwise, product
from typing import Any

import numpy as np
import pytest
from amounts import many

from aidotnet_py.backends.kernel import (
    LOOP_OPERATIONS,
    Kernel,
    LoopNest,
    Number,
    Operand,
    Reference,
    Step,
    with_operands,
)
from aidotnet_py.backends.numpy.assembly import kernel_text
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.backends.numpy.machine_code import Machine
from aidotnet_py.backends.rows import ByRows

pytestmark = pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed")

Rng = np.random.Generator
FLOATS = ("float32", "float64")
SPECIAL = [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 1e-40, 3e38]
OF_TWO = ("add", "subtract", "multiply", "divide")
TRUTHS = ("logical_and", "logical_or")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
SIZE = 4000


def in_numpy(name: str) -> Callable[..., Any]:
    own = {
        "identity": lambda x: x,
        "where": np.where,
        "relu": lambda x: np.maximum(x, x.dtype.type(0)) + x.dtype.type(0),
    }
    return own[name] if name in own else getattr(np, name)


def run_by_element(nest: LoopNest, arguments: list[Any]) -> None:
    """Run a nest as `LoopNest` defines it."""
    for index in product(*map(range, nest.shape)):
        values: list[Any] = []

        def place_of(operand: Operand, index: tuple[int, ...] = index) -> tuple[Any, int]:
            return arguments[operand.argument], operand.offset + int(np.dot(index, operand.strides))

        def read(reference: Reference, values: list[Any] = values) -> Any:
            if isinstance(reference, Operand):
                array, place = place_of(reference)
                return array[place]
            return (
                np.dtype(reference.dtype).type(reference.value) if isinstance(reference, Number) else values[reference]
            )

        for step in nest.steps:
            inputs = [read(r) for r in step.inputs]
            kind = np.dtype(step.dtype).type
            values.append(kind(inputs[0] if step.operation == "convert" else in_numpy(step.operation)(*inputs)))
        moved = [[(place, read(value)) for place, value in pairs] for pairs in (nest.stores, nest.sums, nest.maxima)]
        for (operand, value), combine in (
            *((pair, lambda _, new: new) for pair in moved[0]),
            *((pair, np.add) for pair in moved[1]),
            *((pair, np.maximum) for pair in moved[2]),
        ):
            array, place = place_of(operand)
            array[place] = combine(array[place], value)


def an_operand(rng: Rng, shape: tuple[int, ...], argument: int, dtype: str, *, inner: int) -> Operand:
    """An operand whose elements lie ``inner`` apart along the last axis, and apart or not along the others."""
    strides, reach = [inner], abs(inner) * (shape[-1] - 1)
    for length in reversed(shape[:-1]):
        stride = 0 if inner == 0 and rng.random() < 0.5 else reach + int(rng.integers(1, 3))
        strides.insert(0, stride)
        reach += stride * (length - 1)
    return Operand(argument, dtype, tuple(strides), int(rng.integers(SIZE - reach)))


def a_nest(rng: Rng, dtypes: list[str], *, in_place: bool) -> LoopNest:
    shape = (
        *rng.integers(1, 4, rng.integers(0, 3)).tolist(),
        int(rng.choice([1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 19, 35])),
    )
    outputs = rng.permutation(len(dtypes))[:3].tolist()
    inputs = [a for a in range(len(dtypes)) if a not in outputs]
    read = [
        an_operand(rng, shape, a, dtypes[a], inner=int(rng.choice([0, 1, 1, 1, 2, 5]))) for a in inputs for _ in (0, 1)
    ]
    steps: list[Step] = []

    def a_reference(dtype: str) -> Reference:
        known: list[Reference] = [o for o in read if o.dtype == dtype]
        known += [i for i, step in enumerate(steps) if step.dtype == dtype]
        number = Number(float(rng.choice([0, 1])) if dtype == "bool" else float(rng.choice([-2.5, 0.0, 0.1, 7])), dtype)
        return known[rng.integers(len(known))] if known and rng.random() < 0.9 else number

    for _ in range(rng.integers(1, 8)):
        operation, dtype = str(rng.choice(sorted(LOOP_OPERATIONS))), str(rng.choice(FLOATS))
        if operation in TRUTHS or operation == "logical_not":
            steps.append(
                Step(operation, tuple(a_reference("bool") for _ in range(2 - (operation not in TRUTHS))), "bool")
            )
        elif operation in COMPARISONS:
            kind = str(rng.choice([*FLOATS, "bool"]))
            steps.append(Step(operation, (a_reference(kind), a_reference(kind)), "bool"))
        elif operation == "where":
            steps.append(Step(operation, (a_reference("bool"), a_reference(dtype), a_reference(dtype)), dtype))
        elif operation == "convert":
            source, target = rng.permutation([*FLOATS, "bool"])[:2].tolist()
            steps.append(Step(operation, (a_reference(source),), target))
        else:
            steps.append(Step(operation, tuple(a_reference(dtype) for _ in range(1 + (operation in OF_TWO))), dtype))
    stores, sums, maxima = list[tuple[Operand, Reference]](), list[tuple[Operand, Reference]](), list[Any]()
    for output in outputs:
        dtype = dtypes[output]
        kind = int(rng.integers(1 if dtype == "bool" else 3))
        place = an_operand(rng, shape, output, dtype, inner=int(rng.choice([0, 1, 1, 2])))
        (stores, sums, maxima)[kind].append((place, a_reference(dtype)))
        if in_place:
            # Elements that other elements' work may write.
            read.append(
                place if rng.random() < 0.5 else Operand(output, dtype, place.strides, max(place.offset - 1, 0))
            )
            steps.append(Step("identity", (read[-1],), dtype))
            stores, sums, maxima = (
                [(p, len(steps) - 1 if p is place else v) for p, v in pairs] for pairs in (stores, sums, maxima)
            )
    return LoopNest(shape, tuple(steps), tuple(stores), tuple(sums), tuple(maxima))


def elsewhere(rng: Rng, nest: LoopNest, dtypes: list[str]) -> LoopNest:
    """The same work on other arguments, or on other places of the same ones."""
    used = {o.argument: min(p.offset for p in nest.operands if p.argument == o.argument) for o in nest.operands}
    others = list(range(len(dtypes)))
    for dtype in dtypes:
        alike = [a for a in others if dtypes[a] == dtype and others[a] == a]
        for a, other in zip(alike, rng.permutation(alike).tolist(), strict=True):
            others[a] = other
    steps = {argument: int(rng.integers(least + 1)) for argument, least in used.items()}

    def move(operand: Operand) -> Operand:
        return replace(operand, argument=others[operand.argument], offset=operand.offset - steps[operand.argument])

    moved = with_operands(nest, move)
    assert isinstance(moved, LoopNest)
    return moved


def some_arguments(rng: Rng, dtypes: list[str]) -> list[Any]:
    arguments = [rng.normal(size=SIZE).astype(dtype) for dtype in dtypes]
    for array in arguments:
        places = rng.integers(SIZE, size=SIZE // 2)
        array[places] = rng.choice(SPECIAL, places.size).astype(array.dtype)
    return arguments


@cache
def machine() -> Machine:
    return Machine()


NUMBERS = count()


def check(kernel: Kernel, arguments: list[Any], parts: int = 1) -> None:
    """Check early and optimized code."""
    expected = [array.copy() for array in arguments]
    for nest in kernel.nests:
        assert isinstance(nest, LoopNest)
        run_by_element(nest, expected)
    for optimize in (False, True):
        name = f"kernel_{next(NUMBERS)}"
        address = machine().load(machine().compile(kernel_text(kernel, name), optimize=optimize), name)
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
        found = [array.copy() for array in arguments]
        table = (ctypes.c_void_p * len(found))(*(array.ctypes.data for array in found))
        for part in reversed(range(parts)):
            function(table, part, parts)
        for array, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, wanted)
            if array.dtype != bool:
                assert np.all((np.signbit(array) == np.signbit(wanted)) | np.isnan(wanted))


@pytest.mark.parametrize("seed", range(many(8)))
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_nests_do_what_their_definition_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtypes = ["float32", "float32", "float64", "bool", *rng.choice([*FLOATS, "bool"], 2).tolist()]
    nests = [a_nest(rng, dtypes, in_place=seed % 2 == 1) for _ in range(6)]
    nests += [elsewhere(rng, nest, dtypes) for nest in nests for _ in range(rng.integers(3))]
    rng.shuffle(nests)  # type: ignore[arg-type]
    check(Kernel(tuple(nests), len(dtypes)), some_arguments(rng, dtypes))


def test_an_argument_of_several_dtypes() -> None:
    memory = np.arange(64, dtype=np.float64)
    truths, numbers = Operand(0, "bool", (1,), 8 * 40 + 3), Operand(0, "float64", (1,), 8)
    nest = LoopNest((8,), (Step("less", (numbers, Number(11.0, "float64")), "bool"),), ((truths, 0),))
    nests = [with_operands(nest, lambda o, i=i: replace(o, offset=o.offset + i)) for i in range(3)]  # type: ignore[misc]
    compiler = LlvmCompiler()
    (bind,) = compiler.submit([Kernel(tuple(nests), 1)]).result(wait=True) or ()
    bind([compiler.address_of(memory)])()
    expected = np.concatenate([np.arange(8, 10) < 11, np.arange(10, 18) < 11])
    np.testing.assert_array_equal(memory.view(np.bool_)[8 * 40 + 3 : 8 * 40 + 13], expected)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_work_at_many_places_is_written_once(by_rows: bool) -> None:
    def nest(place: int) -> LoopNest:
        x, out = Operand(0, "float32", (40, 1), 300 * place), Operand(1 + place % 2, "float32", (40, 1), 300 * place)
        sums = () if by_rows else ((Operand(3, "float32", (0, 1), 100 * (place % 3)), 0),)
        return LoopNest((5, 9), (Step("sqrt", (x,), "float32"),), ((out, 0),), sums)

    kernel, several = Kernel((nest(0),), 4), Kernel(tuple(nest(place) for place in range(10)), 4)
    assert (ByRows.of(several) is not None) is by_rows
    lines, of_several = (kernel_text(k, "kernel").splitlines() for k in (kernel, several))
    assert len(of_several) < len(lines) + 50
    check(several, some_arguments(np.random.default_rng(0), ["float32"] * 4))


@pytest.mark.parametrize("updates", ["stores", "sums", "maxima"])
@pytest.mark.parametrize("gaps", [(1,), (15,), (16,), (17,), (-40,), (16, 20), (16, 32), (40, 40)])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_several_places_in_one_argument(gaps: tuple[int, ...], updates: str) -> None:
    """Rows of 16 that begin 20 apart: vectors of places that do not meet within a row, although they do beyond it."""
    x = Operand(0, "float32", (16, 1), 3)
    steps = (Step("sqrt", (x,), "float32"), Step("add", (0, x), "float32"), Step("negative", (1,), "float32"))
    places = [Operand(1, "float32", (20, 1), 200 + gap) for gap in (0, *gaps)]
    nest = LoopNest((5, 16), steps, **{updates: tuple((place, i) for i, place in enumerate(places))})
    apart = all(abs(a - b) >= 16 for a, b in pairwise(sorted({0, *gaps})))
    lines = kernel_text(Kernel((nest,), 2), "kernel").splitlines()
    assert any("store <" in line for line in lines) is apart
    check(Kernel((nest,), 2), some_arguments(np.random.default_rng(0), ["float32"] * 2))


@pytest.mark.parametrize("gap", [0, 5, 16, -16])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_what_one_place_reads_and_another_writes(gap: int) -> None:
    x, out = (Operand(0, "float32", (20, 1), 200 + offset) for offset in (0, gap))
    check(
        Kernel((LoopNest((5, 16), (Step("negative", (x,), "float32"),), ((out, 0),)),), 1),
        some_arguments(np.random.default_rng(0), ["float32"]),
    )


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [15, 16, 33, 70])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_parts_of_the_rows_make_the_whole(rows: int, parts: int) -> None:
    x, y, out = (Operand(i, "float32", (1,), offset) for i, offset in enumerate((3, 0, 1)))
    mask = Operand(3, "bool", (1,))
    steps = (Step("divide", (x, y), "float32"), Step("less", (0, Number(0.5, "float32")), "bool"))
    sums = LoopNest((rows,), sums=((out, x),))
    kernel = Kernel((LoopNest((rows,), steps, ((out, 0), (mask, 1))), sums), 4)
    assert ByRows.of(kernel) is not None
    arguments = some_arguments(np.random.default_rng(rows), ["float32", "float32", "float32", "bool"])
    check(kernel, arguments, parts)


def test_a_long_nest_has_a_short_text() -> None:
    nest = LoopNest((10_000,), sums=((Operand(1, "float32", (0,)), Operand(0, "float32", (1,))),))
    assert len(kernel_text(Kernel((nest,), 2), "kernel").splitlines()) < 100


def test_a_maximum_is_stored_whole() -> None:
    """LLVM would store what is larger by a mask, which takes some processors much longer."""
    binding = pytest.importorskip("llvmlite.binding")
    place, x = Operand(1, "float32", (0, 1)), Operand(0, "float32", (16, 1))
    kernel = Kernel((LoopNest((5, 16), maxima=((place, x),)),), 2)
    check(kernel, some_arguments(np.random.default_rng(0), ["float32"] * 2))
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    processor, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    target = binding.Target.from_default_triple().create_target_machine(cpu=processor, features=features, opt=3)
    assert "maskmov" not in target.emit_assembly(binding.parse_assembly(kernel_text(kernel, "kernel")))
