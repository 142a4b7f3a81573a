"""Tensors of PyTorch and arrays of JAX come in by DLPack, over the same memory, wherever arrays are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    ArgumentException,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    NeuralNetworkModel,
    TaskBatch,
)
from aidotnet_py.backends import adopt, get_backend, to_host
from aidotnet_py.backends import foreign as foreign_arrays
from aidotnet_py.data import ArrayLoader
from aidotnet_py.nn import BatchNorm, Dense, Sequential

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)).astype(np.float32), np.repeat(np.arange(3), 4)


def torch_tensor(array: Any) -> Any:
    return pytest.importorskip("torch").tensor(array)


def jax_array(array: Any) -> Any:
    # Without 64-bit numbers JAX would round the labels' type.
    return pytest.importorskip("jax.numpy").asarray(array)


@pytest.fixture(params=[torch_tensor, jax_array], ids=["torch", "jax"])
def foreign(request: pytest.FixtureRequest) -> Any:
    return request.param


def network() -> NeuralNetworkModel[np.float32]:
    return NeuralNetworkModel(
        Sequential(Dense(8), BatchNorm(), Dense(3)), input_shape=(3,), loss=CrossEntropyLoss(), seed=0
    )


def line() -> Any:
    return FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((3, 1), np.float32)})


class TestTheSameNumbers:
    @pytest.mark.slow
    def test_a_task(self, foreign: Any) -> None:
        learner = MAMLAlgorithm(MAMLOptions(network(), InnerLearningRate=0.1, AdaptationSteps=3))
        ours = MetaLearningTask(SupportSetX=X[::2], SupportSetY=Y[::2], QuerySetX=X[1::2], QuerySetY=Y[1::2])
        names = ("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY")
        theirs = MetaLearningTask(**{name: foreign(getattr(ours, name)) for name in names})
        adapted = learner.Adapt(ours)
        expected = adapted.Predict(X)
        np.testing.assert_array_equal(learner.Adapt(theirs).Predict(foreign(X)), expected)
        assert learner.AdaptAndEvaluate(theirs).QueryLoss == learner.AdaptAndEvaluate(ours).QueryLoss
        other = MAMLAlgorithm(MAMLOptions(network(), InnerLearningRate=0.1, AdaptationSteps=3))
        assert learner.MetaTrain(TaskBatch([theirs, theirs])) == other.MetaTrain(TaskBatch([ours, ours]))
        np.testing.assert_array_equal(learner.GetParameters(), other.GetParameters())

    def test_support_sets_in_batches(self, foreign: Any) -> None:
        learner = MAMLAlgorithm(MAMLOptions(network(), AdaptationSteps=2))
        ours = MetaLearningTask(SupportSetX=[X[:6], X[6:]], SupportSetY=[Y[:6], Y[6:]])
        theirs = MetaLearningTask(
            SupportSetX=[foreign(X[:6]), foreign(X[6:])], SupportSetY=[foreign(Y[:6]), foreign(Y[6:])]
        )
        np.testing.assert_array_equal(learner.Adapt(theirs).GetParameters(), learner.Adapt(ours).GetParameters())

    def test_a_model(self, foreign: Any) -> None:
        model, other, x, y = network(), network(), foreign(X), foreign(Y)
        other.SetParameters(foreign(model.GetParameters()))
        np.testing.assert_array_equal(other.GetParameters(), model.GetParameters())
        np.testing.assert_array_equal(model.Predict(x), model.Predict(X))
        fixed = model.with_statistics_of(x)
        np.testing.assert_array_equal(fixed.Predict(x[:1]), model.with_statistics_of(X).Predict(X[:1]))
        np.testing.assert_array_equal(model.ComputeGradients(x, y), model.ComputeGradients(X, Y))
        model.Train(x, y)
        other.Train(X, Y)
        np.testing.assert_array_equal(model.GetParameters(), other.GetParameters())

    def test_a_loss(self, foreign: Any) -> None:
        assert CrossEntropyLoss().CalculateLoss(foreign(X), foreign(Y)) == CrossEntropyLoss().CalculateLoss(X, Y)

    def test_a_loader(self, foreign: Any) -> None:
        ours, theirs = (ArrayLoader(x, y, 2, 1, 3, seed=0) for x, y in [(X, Y), (foreign(X), foreign(Y))])
        for _ in range(3):
            np.testing.assert_array_equal(theirs.GetNextTask().QueryInput, ours.GetNextTask().QueryInput)


class TestNothingIsCopied:
    """A change of the tensor shows in what was made of it."""

    def test_in_a_task(self) -> None:
        x = torch_tensor(X)
        task = MetaLearningTask(SupportSetX=x, SupportSetY=torch_tensor(Y))
        assert isinstance(task.SupportInput, np.ndarray)
        assert task.SupportInput.__array_interface__["data"][0] == x.data_ptr()
        x[0, 0] = 77.0
        assert task.SupportInput[0, 0] == 77.0

    def test_in_a_loader(self) -> None:
        x = torch_tensor(X)
        loader = ArrayLoader(x, Y, 2, 1, 3, seed=0)
        assert loader._pool.inputs.__array_interface__["data"][0] == x.data_ptr()
        x[:] = 5.0
        assert (loader.GetNextTask().QueryInput == 5.0).all()

    def test_with_strides(self) -> None:
        x = torch_tensor(X).T
        array = adopt(x, "x")
        assert array.shape == (3, 12)
        assert array.strides == X.T.strides
        assert array.__array_interface__["data"][0] == x.data_ptr()

    def test_of_jax(self) -> None:
        x = jax_array(X)
        assert adopt(x, "x").__array_interface__["data"][0] == x.unsafe_buffer_pointer()

    def test_the_tensor_lives_as_long_as_the_array(self) -> None:
        array = adopt(torch_tensor(X), "x")
        np.testing.assert_array_equal(array, X)

    def test_arrays_of_a_backend_are_themselves(self) -> None:
        batches = [X[:6], X[6:]]
        task = MetaLearningTask(SupportSetX=batches, SupportSetY=[Y[:6], Y[6:]])
        assert task.SupportInput is batches
        assert adopt(X, "x") is X


class OnDevice:
    """A tensor on another device, as DLPack tells of it; there is no such device here."""

    shape, dtype = (2, 3), "float32"

    def __init__(self, device: tuple[int, int]) -> None:
        self._device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("nothing is handed over")


class TestRefusals:
    def test_tensors_that_require_gradients(self) -> None:
        x = torch_tensor(X).requires_grad_()
        with pytest.raises(ArgumentException, match=r"input must not require gradients.* use input\.detach\(\)"):
            line().Predict(x)
        with pytest.raises(ArgumentException, match=r"SupportSetX must not require gradients"):
            MetaLearningTask(SupportSetX=x, SupportSetY=Y)
        with pytest.raises(ArgumentException, match=r"SupportSetX\[1\] must not require gradients"):
            MetaLearningTask(SupportSetX=[X, x], SupportSetY=[Y, Y])
        with pytest.raises(ArgumentException, match=r"predicted must not require gradients"):
            MeanSquaredErrorLoss().CalculateLoss(x, X)
        with pytest.raises(ArgumentException, match=r"X must not require gradients"):
            ArrayLoader(x, Y, 2, 1, 3)
        with pytest.raises(ArgumentException, match=r"parameters must not require gradients"):
            line().SetParameters(x[:1, :].ravel())

    def test_views_whose_signs_are_not_in_memory(self) -> None:
        torch = pytest.importorskip("torch")
        z = torch.complex(torch.zeros(2, 3), torch.ones(2, 3))
        with pytest.raises(ArgumentException, match=r"input must hold its numbers .*use input\.resolve_neg\(\)"):
            line().Predict(z.conj().imag)
        with pytest.raises(ArgumentException, match=r"predicted must hold .*use predicted\.resolve_conj\(\)"):
            MeanSquaredErrorLoss().CalculateLoss(z.conj(), X[:2])
        np.testing.assert_array_equal(line().Predict(z.conj().imag.resolve_neg()), np.full((2, 1), -3.0))

    def test_a_dtype_that_numpy_lacks(self) -> None:
        torch = pytest.importorskip("torch")
        with pytest.raises(ArgumentException, match=r"DLPack can hand over.*torch\.bfloat16.*convert it to float32"):
            line().Predict(torch.zeros((2, 3), dtype=torch.bfloat16))

    def test_a_dtype_that_the_model_lacks(self) -> None:
        with pytest.raises(ArgumentException, match="input must have the model's dtype float32, got float64"):
            line().Predict(torch_tensor(X.astype(np.float64)))

    def test_another_device(self) -> None:
        with pytest.raises(
            ArgumentException, match=r"input must be on the CPU or a CUDA device, .* on DLPack's device 8; copy it"
        ):
            line().Predict(OnDevice((8, 0)))

    def test_a_cuda_device_without_cupy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> Any:
            raise ArgumentException("cupy is not installed")

        monkeypatch.setattr(foreign_arrays, "get_backend", missing)
        with pytest.raises(
            ArgumentException, match=r"input must be on the CPU if CuPy cannot be used.*copy it to the CPU"
        ):
            line().Predict(OnDevice((2, 0)))

    def test_tasks_of_ones_own_class(self) -> None:
        class Own(MetaLearningTask[Any, Any, Any]):
            SupportInput = property(lambda self: torch_tensor(X))  # type: ignore[assignment]

        learner = MAMLAlgorithm(MAMLOptions(network()))
        with pytest.raises(ArgumentException, match="got a Tensor; make the task a MetaLearningTask, which takes it"):
            learner.Adapt(Own(SupportSetX=X, SupportSetY=Y))


def test_tensors_of_a_device_stay_there() -> None:
    """PyTorch's tensors on a GPU become CuPy's arrays over the same memory."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU for PyTorch")
    x = torch.tensor(X, device="cuda")
    array: Any = adopt(x, "x")
    assert array.data.ptr == x.data_ptr()
    model = line().To(get_backend("cupy"))
    np.testing.assert_allclose(to_host(model.Predict(x), "y"), line().Predict(X), rtol=1e-5)
