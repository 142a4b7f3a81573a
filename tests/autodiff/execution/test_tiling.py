"""Products over many windows, taken some images at a time: the same results in less memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable, plan, tiling
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.strides import common_refinement, refined_strides
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.backends.kernel import LoopRules


def network(parameters: Any, x: Any) -> Any:
    first, second, last = parameters
    y = ad.relu(ad.batch_norm(ad.conv2d(x, first, stride=2)))
    y = ad.relu(ad.batch_norm(ad.conv2d(y, second)))
    return np.mean((y.reshape(y.shape[0], -1) @ last) ** 2)


def program_of(tasks: int | None) -> Program:
    rng = np.random.default_rng(0)
    shapes = ((3, 3, 2, 8), (3, 3, 8, 8), (7 * 7 * 8, 3))
    p, v = (tuple(rng.standard_normal(s) for s in shapes) for _ in range(2))
    x = rng.standard_normal((7, 14, 14, 2))

    def everything(p: Any, x: Any, v: Any) -> Any:
        return ad.value_and_grad(network)(p, x), ad.hvp(lambda q: network(q, x), p, v)

    single = ad.trace(everything, p, x, v)
    return single if tasks is None else vmap_program(single, [True] * len(single.inputs), tasks)


@pytest.mark.costly
@pytest.mark.parametrize("tasks", [None, 1, 3])
@pytest.mark.parametrize("tile", [1, 8_000, 20_000])
def test_tiles_change_rounding_alone(
    backend: Backend, tasks: int | None, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for most, of_tile in ((2**40, 1), (100, tile)):
        monkeypatch.setattr(tiling, "_MOST_BYTES", most)
        monkeypatch.setattr(tiling, "_TILE_BYTES", of_tile)
        # A Program of its own: all Executables of one share a plan.
        program = program_of(tasks)
        rng = np.random.default_rng(1)
        executable = Executable(program, backend)
        for array in executable.inputs:
            backend.copyto(array, backend.asarray(rng.standard_normal(array.shape)))
        executable.run()
        results.append([np.array(backend.to_numpy(output)) for output in executable.outputs])
    for whole, tiled in zip(*results, strict=True):
        np.testing.assert_allclose(tiled, whole, rtol=1e-10, atol=1e-12 * np.abs(whole).max())


def test_memory_no_longer_holds_all_windows() -> None:
    x, w = np.zeros((40, 64, 64, 4), np.float32), np.zeros((3, 3, 4, 4), np.float32)
    program = ad.trace(ad.grad(lambda w: np.sum(ad.conv2d(x, w) ** 2)), w)
    windows = 9 * x.nbytes
    assert windows > tiling._MOST_BYTES
    assert program.peak_memory < windows / 2
    planned = plan(program)
    assert sum(work.primitive is not None and work.primitive.name == "patches" for work in planned.work) > 40


def test_windows_that_a_later_stage_reads_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((6, 8, 8, 2))
    program = ad.trace(lambda x, w: ad.conv2d(x, w), x, np.zeros((3, 3, 2, 4)))
    monkeypatch.setattr(tiling, "_MOST_BYTES", 0)
    monkeypatch.setattr(tiling, "_TILE_BYTES", 1)

    def patches(stages: list[int]) -> int:
        return sum(w.primitive is not None and w.primitive.name == "patches" for w in plan(program, stages).work)

    assert patches([0, 0]) == 6
    assert patches([0, 1]) == 1


def test_windows_too_large_to_keep_are_taken_anew_in_the_later_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = np.zeros((6, 8, 8, 2)), np.zeros((3, 3, 2, 4))
    program = ad.trace(lambda x, w: ad.conv2d(x, w), x, w)
    kept = plan(program, [0, 1]).nbytes
    for name, value in (("_MOST_BYTES", 0), ("_TILE_BYTES", 1), ("_KEPT_BYTES", 0)):
        monkeypatch.setattr(tiling, name, value)
    planned = plan(program, [0, 1])
    taken = [w.stage for w in planned.work if w.primitive is not None and w.primitive.name == "patches"]
    assert taken == [1] * 6
    # Of all windows, those of one image.
    assert kept - planned.nbytes == 5 / 6 * 9 * x.nbytes


def test_sums_of_products_are_folded_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = np.zeros((6, 8, 8, 2)), np.zeros((3, 3, 2, 4))

    def tangent_of_gradient(x: Any, dx: Any, w: Any, dw: Any) -> Any:
        return ad.jvp(lambda x, w: ad.grad(lambda x: np.sum(ad.conv2d(x, w) ** 2))(x), (x, w), (dx, dw))[1]

    program = ad.trace(tangent_of_gradient, x, x, w, w)
    whole = plan(program).nbytes
    monkeypatch.setattr(tiling, "_MOST_BYTES", 0)
    monkeypatch.setattr(tiling, "_TILE_BYTES", 1)
    planned = plan(program)
    folded = [w.operands[0].type.shape[0] for w in planned.work if w.primitive and w.primitive.name == "fold"]
    assert folded == [1] * 6
    assert planned.nbytes < whole / 2


def test_tiles_are_no_smaller_than_the_matrix_that_they_are_multiplied_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "_MOST_BYTES", 0)
    monkeypatch.setattr(tiling, "_TILE_BYTES", 1)

    def rows_at_once(filters: int) -> set[int]:
        program = ad.trace(lambda x, w: ad.conv2d(x, w), np.zeros((6, 8, 8, 2)), np.zeros((3, 3, 2, filters)))
        works = (w for w in plan(program).work if w.primitive is not None and w.primitive.name == "matmul")
        return {w.out.type.shape[-2] for w in works}

    assert rows_at_once(4) == {64}
    assert rows_at_once(2 * 64) == {2 * 64}


def test_products_of_tiles_are_added_at_once() -> None:
    """The weights' gradient of a layer with many filters: its tiles never all lie side by side."""
    x, w = np.zeros((256, 7, 7, 32), np.float32), np.zeros((3, 3, 32, 256), np.float32)
    program = ad.trace(ad.grad(lambda w: np.sum(ad.conv2d(x, w) ** 2)), w)
    parts = [
        work
        for work in plan(program, rules=LoopRules(minimal_filtering=False)).work
        if work.primitive is not None and work.primitive.name == "matmul" and work.out.type.size == w.size
    ]
    assert len(parts) > 4
    assert len({work.out.storage.slot for work in parts}) <= 2


def test_parts_of_a_concatenation_are_made_in_their_place() -> None:
    program = ad.trace(lambda x: np.concatenate([np.exp(x), np.sin(x), x], axis=1), np.ones((3, 4)))
    planned = plan(program)
    assert [work.primitive.name if work.primitive else "copy" for work in planned.work] == ["exp", "sin", "copy"]
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(program(x), np.concatenate([np.exp(x), np.sin(x), x], axis=1))


SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@given(shape=SHAPES, data=st.data())
@settings(max_examples=many(30))
def test_refinements_see_the_same_elements(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Split some axes: the refinement of both shapes is the split one, and strides are NumPy's for that reshape."""
    split: list[int] = []
    for n in shape:
        divisor = data.draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0]))
        split += [divisor, n // divisor]
    array = np.transpose(np.zeros(shape[::-1]))
    found = common_refinement(shape, tuple(split))
    assert found is not None
    assert [n for n in found if n != 1] == [n for n in split if n != 1] or found == shape
    strides = refined_strides(shape, tuple(s // 8 for s in array.strides), found)
    for index in np.ndindex(*found):
        place = np.unravel_index(np.ravel_multi_index(index, found), shape)
        offset = sum(8 * i * s for i, s in zip(index, strides, strict=True))
        assert offset == sum(i * s for i, s in zip(place, array.strides, strict=True))


def test_shapes_without_a_common_refinement() -> None:
    assert common_refinement((2, 3), (3, 2)) is None
    assert common_refinement((2, 3), (6, 2)) is None
    assert common_refinement((4, 6), (2, 12)) == (2, 2, 6)
    assert common_refinement((0, 3), (3, 0)) is None


def test_an_addend_that_is_no_product_is_folded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution and an overlapping pooling read one image through the same windows; both pull back to it."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((6, 8, 8, 2)), rng.standard_normal((3, 3, 2, 2))

    def loss(x: Any, w: Any) -> Any:
        pooled = ad.average_pool2d(x, 3, stride=1, padding=1)
        return np.sum(np.sin(ad.conv2d(x, w, padding=1)) + 100.0 * np.cos(pooled))

    whole = ad.grad(loss)(x, w)
    monkeypatch.setattr(tiling, "_MOST_BYTES", 0)
    monkeypatch.setattr(tiling, "_TILE_BYTES", 1)
    executable = Executable(ad.trace(ad.grad(loss), x, w), get_backend("numpy"), inputs=[x, w])
    executable.run()
    np.testing.assert_allclose(executable.outputs[0], whole, rtol=1e-12, atol=1e-12)
    # Neither way is the witness of the other: a derivative along a direction is.
    v, h = rng.standard_normal(x.shape), 1e-6
    difference = (loss(x + h * v, w) - loss(x - h * v, w)) / (2 * h)
    np.testing.assert_allclose(np.sum(whole * v), difference, rtol=1e-7)


@pytest.mark.parametrize("tasks", [None, 3])
def test_products_of_one_task_and_of_several_are_tiled(tasks: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "_MOST_BYTES", 100)
    monkeypatch.setattr(tiling, "_TILE_BYTES", 1)
    program = program_of(tasks)
    names = Counter(e.primitive.name for e in program.equations)
    tiled, _ = tiling.tile(program, {v: 0 for e in program.equations for v in (*e.variables, e.output)}, LoopRules())
    after = Counter(e.primitive.name for e in tiled.equations)
    # Seven images a task, each in a tile of its own: of the windows that each convolution takes, and of what it folds.
    for name in ("patches", "fold"):
        assert after[name] >= 7 * (tasks or 1) * names[name] > 0
