"""Products over 3 × 3 windows by minimal filtering: the same results with fewer multiplications."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from amounts import many
from autodiff_cases import conv2d_reference, patches_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable, minimal_filtering, plan, tiling
from aidotnet_py.autodiff.primitives.matmul import matmul, matrix_transpose
from aidotnet_py.autodiff.primitives.shape import reshape
from aidotnet_py.autodiff.primitives.windows import patches
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.backends import get_backend
from aidotnet_py.backends.kernel import LoopRules

Arrays = list[NDArray[Any]]
PLAIN = LoopRules(minimal_filtering=False)


def names_of(program: Program, stages: Sequence[int] | None = None) -> Counter[str]:
    works = plan(program, stages).work
    return Counter(w.primitive.name for w in works if w.primitive is not None)


def outcomes(program: Program, arrays: Sequence[Any], *, stages: Sequence[int] | None = None) -> Arrays:
    executable = Executable(program, get_backend("numpy"), stages=stages, fuse=False)
    for place, array in zip(executable.inputs, arrays, strict=True):
        place[...] = array
    executable.run()
    return [np.array(output) for output in executable.outputs]


def without_minimal_filtering(program: Program, arrays: Sequence[Any], monkeypatch: pytest.MonkeyPatch) -> Arrays:
    with monkeypatch.context() as patch:
        patch.setattr(minimal_filtering, "_LEAST_CHANNELS", 10**9)
        assert "transformed_patches" not in names_of(program)
        return outcomes(program, arrays)


def network(parameters: Any, x: Any) -> Any:
    first, second, last = parameters
    y = ad.relu(ad.batch_norm(ad.conv2d(x, first)))
    y = ad.max_pool2d(ad.relu(ad.batch_norm(ad.conv2d(y, second))), 2)
    return np.mean((y.reshape(y.shape[0], -1) @ last) ** 2)


def everything(side: int, images: int = 3, dtype: Any = np.float64) -> tuple[Program, Arrays]:
    """Loss, gradients and a Hessian-vector product of a network of two convolutions, the first with few channels."""
    rng = np.random.default_rng(side)
    shapes = ((3, 3, 2, 16), (3, 3, 16, 20), ((side // 2) ** 2 * 20, 3))
    p, v = (tuple(rng.standard_normal(s).astype(dtype) / 4 for s in shapes) for _ in range(2))
    x = rng.standard_normal((images, side, side, 2)).astype(dtype)

    def function(p: Any, x: Any, v: Any) -> Any:
        return ad.value_and_grad(network, (0, 1))(p, x), ad.hvp(lambda q: network(q, x), p, v)

    return ad.trace(function, p, x, v), [*p, x, *v]


def assert_close(ours: Arrays, theirs: Arrays, rtol: float = 1e-11) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@given(
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    images=st.integers(1, 3),
    channels=st.integers(16, 18),
    filters=st.integers(16, 18),
    padding=st.sampled_from([0, 1, 2, ((0, 1), (2, 0)), "same"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=many(12))
def test_convolutions_and_their_transposes(
    height: int, width: int, images: int, channels: int, filters: int, padding: Any, seed: int
) -> None:
    """The witness is SciPy's correlation; for gradients, that the product is linear in each array."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, height, width, channels))
    w = rng.standard_normal((3, 3, channels, filters))
    margins = ((1, 1), (1, 1)) if padding == "same" else padding
    margins = ((margins, margins), (margins, margins)) if isinstance(margins, int) else margins
    wanted = conv2d_reference(x, w, margins=margins)
    y = rng.standard_normal(wanted.shape)

    def function(x: Any, w: Any, y: Any) -> Any:
        output, pull = ad.vjp(lambda x, w: ad.conv2d(x, w, padding=padding), x, w)
        return output, *pull(y)

    output, of_x, of_w = outcomes(ad.trace(function, x, w, y), [x, w, y])
    assert_close([output], [wanted], 1e-13)
    for array, gradient, direction in (
        (x, of_x, lambda d: conv2d_reference(d, w, margins=margins)),
        (w, of_w, lambda d: conv2d_reference(x, d, margins=margins)),
    ):
        d = rng.standard_normal(array.shape)
        terms = direction(d) * y
        np.testing.assert_allclose(np.sum(gradient * d), np.sum(terms), rtol=0, atol=1e-12 * np.abs(terms).sum())


@pytest.mark.parametrize("side", [6, 8, 9])
def test_every_derivative_of_a_network(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program, arrays = everything(side)
    assert names_of(program)["transformed_patches"] > 0
    assert_close(outcomes(program, arrays), without_minimal_filtering(program, arrays, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize(("most", "of_tile"), [(2**22, 2**19), (200_000, 2**19), (60_000, 1), (0, 50_000)])
@pytest.mark.parametrize("tasks", [1, 3])
def test_blocks_of_tasks_and_of_images(tasks: int, most: int, of_tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    single, arrays = everything(8, images=5)
    program = vmap_program(single, [True] * len(single.inputs), tasks)
    rng = np.random.default_rng(0)
    stacked = [np.stack([a + 0.1 * rng.standard_normal(a.shape) for _ in range(tasks)]) for a in arrays]
    wanted = without_minimal_filtering(program, stacked, monkeypatch)
    monkeypatch.setattr(tiling, "_MOST_BYTES", most)
    monkeypatch.setattr(tiling, "_TILE_BYTES", of_tile)
    # A Program of its own: all Executables of one share a plan.
    program = vmap_program(single, [True] * len(single.inputs), tasks)
    together = outcomes(program, stacked)
    assert_close(together, wanted)
    # A task has the same bits alone and among others.
    for task in range(tasks):
        alone = outcomes(single, [a[task] for a in stacked])
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b[task])


@pytest.mark.parametrize(("side", "copies"), [(8, False), (9, True)])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("most", [2**22, 200_000, 1])
def test_blocks_are_computed_in_their_places(
    side: int, copies: bool, tasks: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of an odd side are cut to it, which is a copy."""
    monkeypatch.setattr(tiling, "_MOST_BYTES", most)
    monkeypatch.setattr(tiling, "_TILE_BYTES", most)
    x, w = np.ones((tasks, 5, side, side, 16)), np.ones((tasks, 3, 3, 16, 17))
    program = ad.trace(ad.vmap(lambda x, w: ad.conv2d(x, w, padding=1)), x, w)
    calls = plan(program).work
    assert any(call.primitive is None or call.primitive.name == "concatenate" for call in calls) is copies


@pytest.mark.costly
@pytest.mark.parametrize(("most", "of_tile"), [(2**22, 2**19), (60_000, 1)])
def test_tasks_of_tasks_have_the_bits_of_tasks(most: int, of_tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    single, arrays = everything(8)
    monkeypatch.setattr(tiling, "_MOST_BYTES", most)
    monkeypatch.setattr(tiling, "_TILE_BYTES", of_tile)
    tasks = vmap_program(single, [True] * len(single.inputs), 3)
    rng = np.random.default_rng(0)
    stacked = [a + 0.1 * rng.standard_normal((2, 3, *a.shape)) for a in arrays]
    nested = vmap_program(tasks, [True] * len(single.inputs), 2)
    assert names_of(nested)["transformed_patches"] >= names_of(tasks)["transformed_patches"] > 0
    together = outcomes(nested, stacked)
    for i in range(2):
        for a, b in zip(outcomes(tasks, [a[i] for a in stacked]), together, strict=True):
            np.testing.assert_array_equal(a, b[i])


@pytest.mark.parametrize("channels", [2, 16])
def test_no_images_and_no_tasks(channels: int) -> None:
    def function(x: Any, w: Any) -> Any:
        return ad.value_and_grad(lambda x, w: np.sum(ad.conv2d(x, w) ** 2), (0, 1))(x, w)

    x, w = np.ones((2, 8, 8, channels)), np.ones((3, 3, channels, 16))
    value, (of_x, of_w) = function(x[:0], w)
    assert value == 0
    assert of_x.shape == (0, 8, 8, channels)
    np.testing.assert_array_equal(of_w, np.zeros_like(w))
    value, gradients = ad.vmap(function)(np.stack([x])[:0], np.stack([w])[:0])
    assert [a.shape for a in (value, *gradients)] == [(0,), (0, *x.shape), (0, *w.shape)]


def rows_of_windows(x: Any, tasks: int) -> Any:
    windows = patches(x, (3, 3), (1, 1))
    *pixels, height, width, channels = windows.shape
    return reshape(windows, (tasks, math.prod(pixels) // tasks, height * width * channels))


def test_rows_of_pixels_may_be_those_of_several_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 7 × 9 pixels and of 9 × 7 pixels get as many zeros, in other places."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((2, 9, 11, 16), (2, 11, 9, 16), (1, 126, 16))]

    def products(x: Any, z: Any, y: Any) -> Any:
        return [matmul(matrix_transpose(rows_of_windows(images, 1)), y) for images in (x, z)]

    program = ad.trace(products, *arrays)
    assert names_of(program)["transformed_patches"] == 4
    assert_close(outcomes(program, arrays), without_minimal_filtering(program, arrays, monkeypatch))


def test_images_may_be_those_of_several_numbers_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((6, 8, 8, 16), (2, 144, 16), (3, 144, 16))]
    program = ad.trace(lambda x, *filters: [matmul(rows_of_windows(x, len(w)), w) for w in filters], *arrays)
    wanted = without_minimal_filtering(program, arrays, monkeypatch)
    for name, value in (("_MOST_BYTES", 0), ("_TILE_BYTES", 1)):
        monkeypatch.setattr(tiling, name, value)
    assert_close(outcomes(program, arrays, stages=[0, 1, 1]), wanted)


@pytest.mark.costly
@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_loops_give_the_same_bits(side: int, dtype: Any) -> None:
    pytest.importorskip("llvmlite")
    program, arrays = everything(side, dtype=dtype)
    once = outcomes(program, arrays)
    executable = Executable(program, get_backend("numpy"), compile_at=1)
    for place, array in zip(executable.inputs, arrays, strict=True):
        place[...] = array
    executable.compile()
    executable.run()
    for a, b in zip(executable.outputs, once, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_later_stage_transforms_neither_images_nor_filters_of_an_earlier_one() -> None:
    rng = np.random.default_rng(0)
    x, w, v = (rng.standard_normal(s) for s in ((2, 8, 8, 16), (3, 3, 16, 16), (3, 3, 16, 16)))

    def product(x: Any, w: Any, v: Any) -> Any:
        return ad.jvp(lambda w: ad.grad(lambda x, w: np.sum(ad.conv2d(x, w) ** 4), 1)(x, w), (w,), (v,))[1]

    planned = plan(ad.trace(product, x, w, v), [0, 0, 1])
    stages = Counter(
        (w.primitive.name, w.stage) for w in planned.work if w.primitive and "transformed" in w.primitive.name
    )
    # Once: x and w. Each time: v and the tangent's rows; folds of a product and of filters.
    assert stages["transformed_patches", 0] == 2
    assert stages["transformed_patches", 1] == 2
    assert stages["transformed_fold", 1] == 2


def test_images_too_large_to_keep_are_transformed_in_the_later_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = np.zeros((6, 8, 8, 16)), np.zeros((3, 3, 16, 16))
    for name, value in (("_MOST_BYTES", 0), ("_TILE_BYTES", 1)):
        monkeypatch.setattr(tiling, name, value)

    def stages() -> list[int]:
        program = ad.trace(lambda x, w: ad.conv2d(x, w), x, w)
        works = plan(program, [0, 1]).work
        return [w.stage for w in works if w.primitive is not None and w.primitive.name == "transformed_patches"]

    blocks = stages().count(0)
    assert blocks > 1
    assert stages() == [0] * blocks + [1]
    monkeypatch.setattr(tiling, "_KEPT_BYTES", 0)
    assert stages() == [1] * (blocks + 1)


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((2, 8, 8, 15), (3, 3, 15, 16), {}),
        ((2, 8, 8, 16), (3, 3, 16, 15), {}),
        ((2, 8, 8, 16), (3, 3, 16, 16), {"stride": 2}),
        ((2, 8, 8, 16), (3, 3, 16, 16), {"stride": (1, 2)}),
        ((2, 8, 8, 16), (1, 1, 16, 16), {}),
        ((2, 8, 8, 16), (3, 5, 16, 16), {}),
        ((2, 8, 8, 32), (3, 3, 16, 32), {"groups": 2}),
        ((2, 3, 3, 16), (3, 3, 16, 16), {}),
        ((2, 3, 3, 16), (3, 3, 16, 16), {"padding": "valid"}),
    ],
)
def test_other_convolutions_are_products_of_windows(x: Any, w: Any, options: Any) -> None:
    program = ad.trace(lambda x, w: ad.conv2d(x, w, **options), np.zeros(x), np.zeros(w))
    names = names_of(program)
    assert names["patches"] == 1
    assert names["transformed_patches"] == 0


def test_whole_numbers_stay_whole() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-9, 9, (2, 6, 6, 16)), rng.integers(-9, 9, (3, 3, 16, 16))
    y = ad.conv2d(x, w, padding="valid")
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, conv2d_reference(x, w))


def test_half_precision_is_a_product_of_windows() -> None:
    x, w = np.zeros((2, 8, 8, 16), np.float16), np.zeros((3, 3, 16, 16), np.float16)
    assert names_of(ad.trace(lambda x, w: ad.conv2d(x, w), x, w))["patches"] == 1


def test_no_compiler_that_refuses_it_gets_it() -> None:
    program = ad.trace(lambda x, w: ad.conv2d(x, w), np.zeros((2, 8, 8, 16)), np.zeros((3, 3, 16, 16)))
    names = Counter(w.primitive.name for w in plan(program, rules=PLAIN).work if w.primitive is not None)
    assert names["patches"] == 1
    assert names["transformed_patches"] == 0


@pytest.mark.parametrize("shape", [(5, 14, 14, 64, 64), (5, 21, 21, 32, 32), (2, 10, 10, 256, 256)])
def test_rounding_of_single_precision_is_that_of_the_sum(shape: tuple[int, ...]) -> None:
    """Errors are within a few units of single precision, as those of a product of windows are."""
    n, height, width, channels, filters = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, height, width, channels))
    w = rng.standard_normal((3, 3, channels, filters)) / np.sqrt(9 * channels)
    windows = patches_reference(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 1))
    exact = np.tensordot(windows, w, 3)
    arrays = [x.astype(np.float32), w.astype(np.float32)]
    (ours,) = outcomes(ad.trace(lambda x, w: ad.conv2d(x, w), *arrays), arrays)
    errors = np.abs(ours - exact)
    eps = float(np.finfo(np.float32).eps)
    assert np.sqrt(np.mean(errors**2)) < 4 * eps
    assert errors.max() < 32 * eps
