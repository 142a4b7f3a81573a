"""The strategies: their spectra and tasks are what they say, they shrink, and they refuse sizes that cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from aidotnet_py import ArgumentException, NeuralNetworkModel, TaskBatch
from aidotnet_py.backends import Backend, backend_of
from aidotnet_py.nn import LayerNorm, LeakyReLU, ReLU, Residual, Sequential
from aidotnet_py.testing import LinearSystem, check_derivatives
from aidotnet_py.testing import strategies as own

FEW = settings(max_examples=many(20))


@given(own.spd_systems(unknowns=12, condition=1e4))
def test_spectra_are_those_of_the_matrices(system: LinearSystem) -> None:
    computed = np.linalg.eigvalsh(system.A)
    np.testing.assert_allclose(computed, np.sort(system.values), rtol=0, atol=1e-13 * system.largest.max())
    assert (system.largest <= 1e4 * (1 + 1e-12) * system.least).all()
    assert (np.linalg.eigvalsh(system.A) > 0).all()


@given(own.indefinite_systems(unknowns=12))
def test_indefinite_matrices_have_eigenvalues_of_both_signs(system: LinearSystem) -> None:
    computed = np.linalg.eigvalsh(system.A)
    assert (computed[:, 0] < 0).all()
    assert (computed[:, -1] > 0).all()
    np.testing.assert_allclose(computed, np.sort(system.values), rtol=0, atol=1e-13 * system.largest.max())


@given(own.nonsymmetric_systems(unknowns=12))
def test_values_of_others_are_singular_values(system: LinearSystem) -> None:
    computed = np.linalg.svd(system.A, compute_uv=False)
    wanted = np.sort(system.values)[:, ::-1]
    np.testing.assert_allclose(computed, wanted, rtol=0, atol=1e-13 * system.largest.max())


def test_systems_shrink_to_the_fewest_unknowns() -> None:
    system = find(own.spd_systems(), lambda s: s.n >= 5)
    assert (system.tasks, system.n) == (1, 5)
    np.testing.assert_allclose(system.values, np.full((1, 5), system.values[0, 0]))


@given(data=st.data(), classes=st.sampled_from([None, 3]), alike=st.booleans())
def test_batches_fit_their_models(data: st.DataObject, classes: int | None, alike: bool, backend: Backend) -> None:
    batch: TaskBatch[Any, Any, Any] = data.draw(
        own.batches(classes=classes, outputs=2, alike=alike, dtype=np.float32, backend=backend)
    )
    sizes = {(task.SupportInput.shape, task.QueryInput.shape) for task in batch.Tasks}
    assert not alike or len(sizes) == 1
    for task in batch.Tasks:
        assert backend_of(task.SupportInput, task.QueryOutput) is backend
        for x, y in ((task.SupportInput, task.SupportOutput), (task.QueryInput, task.QueryOutput)):
            assert backend.dtype_of(x) == np.float32
            labels = backend.to_numpy(y)
            assert set(labels) == {0, 1, 2} if classes else labels.shape == (len(labels), 2)


@pytest.mark.slow
@given(own.networks(2, smooth=True))
def test_smooth_networks_have_the_derivatives_of_differences(network: Any) -> None:
    parameters, shape = network.initialize(np.random.default_rng(0), (3,))
    assert shape == (2,)
    x = np.random.default_rng(1).uniform(-1, 1, (2, 3))
    check_derivatives(lambda p: network.apply(p, x), parameters, order=1, tolerance=1e-6)


@given(own.networks(2), st.integers(0, 3))
def test_networks_work_on_each_row_alone(network: Any, row: int) -> None:
    model = NeuralNetworkModel(network, input_shape=(3,), dtype=np.float64, seed=0)
    x = np.random.default_rng(1).uniform(-1, 1, (4, 3))
    np.testing.assert_allclose(model.Predict(x)[row], model.Predict(x[[row]])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.costly
@pytest.mark.parametrize("kind", [LeakyReLU, LayerNorm, Residual])
def test_networks_shrink_to_the_layer_that_matters(kind: type) -> None:
    def has_one(network: Any) -> bool:
        assert isinstance(network, Sequential)
        return any(type(layer) is kind for layer in network.layers.values())

    assert len(find(own.networks(), has_one).layers) <= 4
    with pytest.raises(NoSuchExample):
        find(own.networks(smooth=True), lambda n: any(type(x) is ReLU for x in n.layers.values()), settings=FEW)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: own.spd_systems(unknowns=0), "unknowns must be a whole number of at least 1, got 0"),
        (lambda: own.indefinite_systems(unknowns=1), "unknowns must be a whole number of at least 2, got 1"),
        (lambda: own.spd_systems(condition=0.5), "condition must be .* got 0.5"),
        (lambda: own.tasks(classes=1), "classes must be a whole number of at least 2, got 1"),
        (lambda: own.tasks(classes=9), "most_examples must be a whole number of at least 9, got 8"),
        (lambda: own.batches(most_tasks=0), "most_tasks must be"),
        (lambda: own.networks(0), "outputs must be"),
    ],
)
def test_sizes_that_cannot_be_are_refused_at_once(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        call()


@pytest.mark.slow
def test_the_error_without_hypothesis_names_the_extra() -> None:
    program = "import sys; sys.modules['hypothesis'] = None; import aidotnet_py.testing\n"
    program += "try:\n    import aidotnet_py.testing.strategies\nexcept ImportError as error:\n    print(error)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert 'needs hypothesis: pip install "aidotnet-py[testing]"' in shown
