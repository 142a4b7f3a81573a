"""ANIL and BOIL: inner steps move the named layers alone, and every parameter has its exact meta-gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy_doubles import Threads
from plain_models import BareModel, HandWrittenModel
from plain_optimizers import Decaying, Halving
from small_learners import image_model, images
from tanh_network import TanhNetwork, Values, batch_of
from task_batches import in_batches
from whole_procedure import OPTIMIZERS, adapted, derivative, meta_gradient, split

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    BOILAlgorithm,
    BOILOptions,
    FunctionModel,
    InvalidOperationException,
    LBFGSMinimizer,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningAlgorithmType,
    NeuralNetworkModel,
    NewtonCGMinimizer,
    SGDOptimizer,
)
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Dense, Sequential, mlp
from aidotnet_py.testing.learner_state import bits, untouched

NUMPY = get_backend("numpy")
REGRESSION, CLASSIFICATION = TanhNetwork(), TanhNetwork(outputs=3, classify=True)
HEAD, BODY = ("w2", "b2"), ("w1", "b1")
BOTH = pytest.mark.parametrize("algorithm", [ANILAlgorithm, BOILAlgorithm])


def options_for(algorithm: Any, model: Any, **options: Any) -> Any:
    return (ANILOptions if algorithm is ANILAlgorithm else BOILOptions)(model, **options)


def mask_of(network: TanhNetwork, names: Any) -> Values:
    return np.concatenate([np.full(int(np.prod(shape)), float(n in names)) for n, shape in network.shapes.items()])


def expected_of(
    network: TanhNetwork, sets: Any, steps: int, name: str, names: Any, strength: float = 0.0, batches: int = 1
) -> Values:
    mask = mask_of(network, names)

    def query_loss(theta: Values) -> Any:
        losses = []
        for x, y, *query in sets:
            optimizer = OPTIMIZERS[name][1]()
            phi = adapted(network, theta, split((x, y), batches), steps, optimizer, strength=strength, scale=mask)
            losses.append(network.loss(phi, *query))
        return np.mean(losses)

    return derivative(query_loss, network.start())


@pytest.mark.numpy_first
class TestDerivativeOfTheWholeProcedure:
    @pytest.mark.costly
    @pytest.mark.parametrize("names", [HEAD, BODY, ("b1", "w2"), ("w1",)], ids=".".join)
    @pytest.mark.parametrize("strength", [None, 1.5])
    @pytest.mark.parametrize("name", ["the default", "adam"])
    def test_by_complex_steps(self, backend: Backend, name: str, strength: float | None, names: Any) -> None:
        network, sets, steps = REGRESSION, REGRESSION.sets(2), 4
        options: dict[str, Any] = {} if strength is None else {"InnerObjective": "proximal"}
        made = ANILOptions(
            network.model(backend, network.start()),
            AdaptedLayers=names,
            AdaptationSteps=steps,
            InnerLearningRate=0.1,
            InnerOptimizer=OPTIMIZERS[name][0](),
            LambdaRegularization=1 / (strength or 1.0),
            **options,
        )
        found = meta_gradient(ANILAlgorithm, made, batch_of(backend, sets))
        expected = expected_of(network, sets, steps, name, names, strength or 0.0)
        assert np.linalg.norm(expected[mask_of(network, names) == 0]) > 1e-2
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.costly
    @BOTH
    @pytest.mark.parametrize("names", [HEAD, BODY], ids=".".join)
    def test_of_a_classifier(self, backend: Backend, names: Any, algorithm: Any) -> None:
        """Both algorithms do the same with the same names."""
        network, sets = CLASSIFICATION, CLASSIFICATION.sets(3)
        model = network.model(backend, network.start())
        made = options_for(algorithm, model, AdaptedLayers=names, AdaptationSteps=5, InnerLearningRate=0.1)
        found = meta_gradient(algorithm, made, batch_of(backend, sets))
        expected = expected_of(network, sets, 5, "the default", names)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.costly
    @pytest.mark.parametrize("name", ["the default", "adam"])
    @pytest.mark.parametrize("names", [HEAD, BODY], ids=".".join)
    def test_batches_of_a_support_set(self, backend: Backend, names: Any, name: str) -> None:
        network, sets = REGRESSION, REGRESSION.sets(2)
        made = ANILOptions(
            network.model(backend, network.start()),
            AdaptedLayers=names,
            InnerLearningRate=0.1,
            InnerOptimizer=OPTIMIZERS[name][0](),
        )
        found = meta_gradient(ANILAlgorithm, made, in_batches(backend, sets, 3))
        expected = expected_of(network, sets, 5, name, names, batches=3)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.slow
    @BOTH
    @pytest.mark.parametrize("kind", ["convolutions", "shortcut"])
    def test_of_networks_by_central_differences(self, backend: Backend, kind: str, algorithm: Any) -> None:
        model = image_model(backend, kind)
        made = options_for(algorithm, model, AdaptationSteps=4, InnerLearningRate=0.1)
        if kind == "shortcut":
            # In the middle of the network, beside a path that does not see it.
            made.AdaptedLayers = ["1_residual.body.0_conv2d", "1_residual.shortcut.bias"]
        batch = images(backend)
        found, learner = meta_gradient(algorithm, made, batch), algorithm(made)
        theta, h = backend.to_numpy(model.GetParameters()), 1e-5

        def procedure(point: Values) -> float:
            model.SetParameters(backend.asarray(point))
            return float(learner.Evaluate(batch))

        generator = np.random.default_rng(1)
        for direction in generator.standard_normal((2, len(theta))):
            slope = (procedure(theta + h * direction) - procedure(theta - h * direction)) / (2 * h)
            assert abs(slope - found @ direction) <= 1e-6 * np.linalg.norm(found) * np.linalg.norm(direction)
            assert abs(slope) > 1e-4 * np.linalg.norm(found)

    def test_first_order(self, backend: Backend) -> None:
        network, sets, mask = REGRESSION, REGRESSION.sets(2), mask_of(REGRESSION, HEAD)
        expected = []
        for x, y, *query in sets:
            phi = adapted(network, network.start(), [(x, y)], 5, OPTIMIZERS["the default"][1](), scale=mask)
            expected.append(network.gradient(phi, *query))
        model = network.model(backend, network.start())
        made = ANILOptions(model, AdaptedLayers=HEAD, InnerLearningRate=0.1, UseFirstOrder=True)
        found = meta_gradient(ANILAlgorithm, made, batch_of(backend, sets))
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-11, atol=1e-13)


@pytest.mark.numpy_first
class TestAdapting:
    @pytest.mark.costly
    @BOTH
    @pytest.mark.parametrize("optimizer", [None, SGDOptimizer(0.1, 0.9), AdamOptimizer(0.1)], ids=["", "m", "adam"])
    @pytest.mark.parametrize("objective", ["support", "proximal"])
    def test_other_layers_do_not_move_a_bit(
        self, backend: Backend, optimizer: Any, objective: Any, algorithm: Any
    ) -> None:
        model = image_model(backend)
        made = options_for(algorithm, model, InnerObjective=objective, InnerOptimizer=optimizer)
        adapted_model = algorithm(made).Adapt(images(backend)[0])
        head = np.concatenate(
            [np.full(int(np.prod(s)), n.startswith("5_dense")) for n, s in model.parameter_shapes.items()]
        )
        moving = head if algorithm is ANILAlgorithm else ~head
        moved = backend.to_numpy(adapted_model.GetParameters()) != backend.to_numpy(model.GetParameters())
        np.testing.assert_array_equal(moved[~moving], False)
        assert moved[moving].mean() > 0.9

    def test_by_an_optimizer_that_takes_each_task_alone(self, backend: Backend) -> None:
        network, (x, y, *_), mask = REGRESSION, REGRESSION.sets(1)[0], mask_of(REGRESSION, HEAD)
        made = ANILOptions(
            network.model(backend, network.start()), AdaptedLayers=HEAD, InnerOptimizer=Halving(), UseFirstOrder=True
        )
        model: Any = ANILAlgorithm(made).Adapt(batch_of(backend, [(x, y, x, y)])[0])
        expected = adapted(network, network.start(), [(x, y)], 5, OPTIMIZERS["sgd"][1](), scale=mask)
        np.testing.assert_allclose(backend.to_numpy(model.GetParameters()), expected, rtol=1e-12)

    def test_an_optimizer_that_moves_without_gradients_moves_no_other_layer(self, backend: Backend) -> None:
        """Weight decay is of what is adapted."""
        network = REGRESSION
        made = ANILOptions(network.model(backend, network.start()), AdaptedLayers=HEAD, InnerOptimizer=Decaying(0.05))
        model: Any = ANILAlgorithm(made).Adapt(batch_of(backend, network.sets(1))[0])
        moved = backend.to_numpy(model.GetParameters()) != network.start()
        np.testing.assert_array_equal(moved, mask_of(network, HEAD) == 1)

    @BOTH
    def test_all_layers_are_meta_learned(self, backend: Backend, algorithm: Any) -> None:
        model = image_model(backend)
        before = backend.to_numpy(model.GetParameters())
        algorithm(options_for(algorithm, model)).MetaTrain(images(backend))
        # A bias before a batch normalisation has no gradient but rounding's, which Adam makes a step of too.
        assert (backend.to_numpy(model.GetParameters()) != before).mean() > 0.9

    @pytest.mark.parametrize("names", [HEAD, BODY], ids=".".join)
    def test_losses_and_steps(self, backend: Backend, names: Any) -> None:
        network, sets, mask = REGRESSION, REGRESSION.sets(2), mask_of(REGRESSION, names)
        made = ANILOptions(network.model(backend, network.start()), AdaptedLayers=names, InnerLearningRate=0.1)
        learner = ANILAlgorithm(made)
        (x, y, *query) = sets[1]
        points = [
            adapted(network, network.start(), [(x, y)], k, OPTIMIZERS["the default"][1](), scale=mask) for k in range(6)
        ]
        result = learner.AdaptAndEvaluate(batch_of(backend, sets)[1])
        np.testing.assert_allclose(result.PerStepLosses, [network.loss(p, x, y) for p in points], rtol=1e-11)
        assert float(result.QueryLoss) == pytest.approx(network.loss(points[-1], *query), rel=1e-11)
        loss = float(learner.MetaTrain(batch_of(backend, sets[1:])))
        assert loss == pytest.approx(network.loss(points[-1], *query), rel=1e-11)

    def test_adapting_all_but_nothing_of_weight_is_maml(self) -> None:
        """Where the only parameter that stays has no effect, both are one."""

        def make() -> Any:
            parameters = {"w": np.ones((2, 1)), "idle": np.ones(1)}
            return FunctionModel(lambda p, x: np.tanh(x @ p["w"]) + 0.0 * p["idle"], parameters)

        batch = batch_of(NUMPY, REGRESSION.sets(2))
        through = meta_gradient(MAMLAlgorithm, MAMLOptions(make()), batch)
        found = meta_gradient(ANILAlgorithm, ANILOptions(make(), AdaptedLayers=["w"]), batch)
        np.testing.assert_allclose(found, through, rtol=1e-13)


@pytest.mark.numpy_first
class TestSolvers:
    """Solvers in the place of steps see the adapted parameters alone, and may have the others' part in threads."""

    @BOTH
    @pytest.mark.parametrize("batches", [1, 2])
    def test_the_identity_moves_nothing(self, algorithm: Any, batches: int) -> None:
        model = REGRESSION.model(NUMPY, REGRESSION.start())
        names = HEAD if algorithm is ANILAlgorithm else BODY
        options = options_for(
            algorithm, model, AdaptedLayers=names, UseFirstOrder=True, InnerOptimizer=lambda objective, theta: theta
        )
        learner = algorithm(options)
        batch = in_batches(NUMPY, REGRESSION.sets(3), batches) if batches > 1 else batch_of(NUMPY, REGRESSION.sets(3))
        for task in batch:
            assert np.array_equal(learner.Adapt(task).GetParameters(), model.GetParameters())

    @pytest.mark.parametrize("solver", [NewtonCGMinimizer(gradient_tolerance=1e-11), LBFGSMinimizer(200, 1e-9)])
    def test_the_head_alone_is_at_its_best(self, backend: Backend, solver: Any) -> None:
        if backend.name != "numpy" and isinstance(solver, LBFGSMinimizer):
            pytest.skip("SciPy works on NumPy arrays")
        theta, sets = REGRESSION.start(), REGRESSION.sets(3)
        model = REGRESSION.model(backend, theta)
        settings: dict[str, Any] = {
            "AdaptedLayers": HEAD,
            "UseFirstOrder": True,
            "InnerObjective": "proximal",
            "LambdaRegularization": 2.0,
            "InnerOptimizer": solver,
        }
        learner = ANILAlgorithm(ANILOptions(model, **settings))
        batch, head = batch_of(backend, sets), mask_of(REGRESSION, HEAD).astype(bool)
        for task, (x, y, *_) in zip(batch, sets, strict=True):
            phi = backend.to_numpy(learner.Adapt(task).GetParameters())
            assert np.array_equal(phi[~head], theta[~head])
            slope = REGRESSION.gradient(phi, x, y) + (phi - theta) / 2.0
            assert np.abs(slope[head]).max() < 1e-7
            assert np.abs(phi[head] - theta[head]).max() > 1e-2
        learner.MetaTrain(batch)


class TestBits:
    @pytest.mark.slow
    @BOTH
    @pytest.mark.parametrize(
        "optimizer", [None, pytest.param(AdamOptimizer(0.01), marks=pytest.mark.slow)], ids=["descent", "adam"]
    )
    def test_segments(self, optimizer: Any, algorithm: Any) -> None:
        found = [
            meta_gradient(
                algorithm,
                options_for(
                    algorithm,
                    image_model(NUMPY),
                    CheckpointSegments=segments,
                    AdaptationSteps=4,
                    InnerOptimizer=optimizer,
                ),
                images(NUMPY),
            )
            for segments in (None, 1, 2, "sqrt")
        ]
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])

    @pytest.mark.slow
    @BOTH
    @pytest.mark.parametrize(
        "options",
        [
            {},
            *(
                pytest.param(o, marks=pytest.mark.slow)
                for o in ({"InnerObjective": "proximal"}, {"UseFirstOrder": True})
            ),
        ],
    )
    def test_the_split_and_the_threads(
        self, options: dict[str, Any], algorithm: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def trained(threads: int) -> Any:
            backend = Threads(threads)
            learner = algorithm(options_for(algorithm, image_model(backend), AdaptationSteps=3, **options))
            losses = [learner.MetaTrain(images(backend, 5)) for _ in range(3)]
            return bits(learner.BaseModel.GetParameters()), losses, learner._record.metrics

        whole = trained(1)
        for flops, threads in ((1, 1), (1, 2), (1_000_000, 2)):
            monkeypatch.setattr(NumPyBackend, "flops_at_once", flops)
            assert trained(threads) == whole

    @BOTH
    def test_a_run_goes_on(self, algorithm: Any, tmp_path: Any) -> None:
        def make(seed: int) -> Any:
            model = NeuralNetworkModel(mlp(6, 6, 1), input_shape=(1,), dtype=np.float64, seed=seed)
            loader = SinusoidLoader(4, 6, seed=seed, dtype=np.float64)
            return algorithm(options_for(algorithm, model, DataLoader=loader))

        learner, resumed = make(0), make(8)
        for _ in range(3):
            learner.MetaTrainStep(3)
        learner.Save(tmp_path / "run")
        expected = [learner.MetaTrainStep(3).MetaLoss for _ in range(3)]
        resumed.MetaTrainStep(2)
        resumed.Load(tmp_path / "run")
        assert [resumed.MetaTrainStep(3).MetaLoss for _ in range(3)] == expected

    @pytest.mark.slow
    def test_names_that_change_between_steps(self) -> None:
        """And batches of two sizes: what was kept for others is not used."""
        model = REGRESSION.model(NUMPY, REGRESSION.start())
        made = ANILOptions(model, AdaptedLayers=HEAD, MetaOptimizer=SGDOptimizer(1.0), GradientClipThreshold=None)
        learner, sets = ANILAlgorithm(made), REGRESSION.sets(3)
        made.InnerLearningRate = 0.1
        for names, count in [(HEAD, 3), (BODY, 3), (HEAD, 2), (("w1", "b2"), 3), (HEAD, 3)]:
            made.AdaptedLayers = names
            model.SetParameters(REGRESSION.start())
            learner.MetaTrain(batch_of(NUMPY, sets[:count]))
            found = REGRESSION.start() - model.GetParameters()
            expected = expected_of(REGRESSION, sets[:count], 5, "the default", names)
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.slow
    def test_another_model(self) -> None:
        learner = ANILAlgorithm(ANILOptions(image_model(NUMPY)))
        learner.MetaTrain(images(NUMPY))
        for kind in ("shortcut", "rectified"):
            learner.SetMetaModel(image_model(NUMPY, kind))
            fresh = ANILAlgorithm(ANILOptions(image_model(NUMPY, kind)))
            assert learner.MetaTrain(images(NUMPY)) == fresh.MetaTrain(images(NUMPY))
            assert bits(learner.BaseModel.GetParameters()) == bits(fresh.BaseModel.GetParameters())

    def test_in_single_precision(self) -> None:
        made = ANILOptions(image_model(NUMPY, dtype=np.float32))
        found = meta_gradient(ANILAlgorithm, made, images(NUMPY, dtype=np.float32))
        wide = meta_gradient(ANILAlgorithm, ANILOptions(image_model(NUMPY)), images(NUMPY))
        assert found.dtype == np.float32
        assert np.linalg.norm(found - wide) <= 1e-3 * np.linalg.norm(wide)


class TestOptions:
    def test_what_is_adapted(self) -> None:
        model = image_model(NUMPY, "shortcut")
        names = list(model.parameter_shapes)
        assert ANILOptions(model).adapted() == ["3_dense.weight", "3_dense.bias"]
        assert BOILOptions(model).adapted() == names[:-2]
        inner = ["1_residual.body.0_conv2d.weight", "1_residual.body.0_conv2d.bias"]
        assert ANILOptions(model, AdaptedLayers=["1_residual.body"]).adapted() == inner
        assert BOILOptions(model, AdaptedLayers=("3_dense", inner[0])).adapted() == [inner[0], *names[-2:]]

    def test_a_name_is_no_prefix(self) -> None:
        parameters = {f"{layer}.w": np.ones((1, 1)) for layer in ("1_dense", "11_dense", "1_dense2")}
        model = FunctionModel(lambda p, x: sum(x @ w for w in p.values()), parameters)
        assert ANILOptions(model, AdaptedLayers=["1_dense"]).adapted() == ["1_dense.w"]

    @BOTH
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["5_dence"], r"^AdaptedLayers must name layers of MetaModel, got '5_dence'; did you mean '5_dense'\?$"),
            (["5_dense", "5_dense.wait"], r"got '5_dense.wait'; did you mean '5_dense.weight'\?$"),
            (["zzz"], r"name layers of MetaModel, got 'zzz'; it has 0_conv2d, 1_batchnorm, 5_dense$"),
            ([], r"^AdaptedLayers must be a list of names or None, got \[\]$"),
            ("5_dense", r"^AdaptedLayers must be a list of names or None, got '5_dense'$"),
            ([5], r"^AdaptedLayers must be a list of names or None, got \[5\]$"),
            (5, r"^AdaptedLayers must be a list of names or None, got 5$"),
            (
                ["0_conv2d", "1_batchnorm", "5_dense"],
                r"^AdaptedLayers must select some of the parameters, got \[.*\], which selects all; use MAMLAlgorithm "
                r"to adapt all$",
            ),
        ],
    )
    def test_impossible_names(self, given: Any, message: str, algorithm: Any) -> None:
        made = options_for(algorithm, image_model(NUMPY), AdaptedLayers=given)
        assert not made.IsValid()
        with pytest.raises(ArgumentException, match=message):
            algorithm(made)

    @BOTH
    def test_a_model_of_one_layer(self, algorithm: Any) -> None:
        model = NeuralNetworkModel(Sequential(Dense(1)), input_shape=(1,))
        quantity = "all" if algorithm is ANILAlgorithm else "none"
        message = rf"^AdaptedLayers must select some of the parameters, got None, which selects {quantity}"
        with pytest.raises(ArgumentException, match=message):
            algorithm(options_for(algorithm, model))

    @BOTH
    def test_a_model_without_layers(self, algorithm: Any) -> None:
        model = REGRESSION.model(NUMPY, REGRESSION.start())
        message = (
            "^AdaptedLayers must name the parameters to adapt, as those of MetaModel belong to no layers, got None; it "
            "has w1, b1, w2, b2$"
        )
        with pytest.raises(ArgumentException, match=message):
            algorithm(options_for(algorithm, model))

    @BOTH
    @pytest.mark.parametrize("kind", [BareModel, HandWrittenModel])
    def test_a_model_that_cannot_be_traced(self, kind: Any, algorithm: Any) -> None:
        made = options_for(algorithm, kind(REGRESSION, REGRESSION.start(), NUMPY), AdaptedLayers=HEAD)
        message = rf"^MetaModel must be an IDifferentiableModel, whose parameter_shapes .*, got a {kind.__name__}$"
        with pytest.raises(ArgumentException, match=message):
            algorithm(made)

    @BOTH
    def test_options_of_another_algorithm(self, algorithm: Any) -> None:
        wanted = "ANILOptions" if algorithm is ANILAlgorithm else "BOILOptions"
        with pytest.raises(ArgumentException, match=f"^options must be {wanted}, got a MAMLOptions$"):
            algorithm(MAMLOptions(image_model(NUMPY)))

    def test_what_is_documented(self) -> None:
        model = image_model(NUMPY)
        assert ANILAlgorithm(ANILOptions(model)).AlgorithmType is MetaLearningAlgorithmType.ANIL
        assert BOILAlgorithm(BOILOptions(model)).AlgorithmType is MetaLearningAlgorithmType.BOIL
        assert ANILOptions(model).AdaptedLayers is None
        assert ANILOptions(model).AdaptationSteps == 5
        with pytest.raises(TypeError, match="BOILOptions has no option 'AdaptedLayer'; did you mean 'AdaptedLayers'"):
            BOILOptions(model, AdaptedLayer=["x"])  # type: ignore[call-arg]  # misspelt on purpose


class TestFailures:
    @BOTH
    @pytest.mark.parametrize("place", [0, 2], ids=["support", "query"])
    @pytest.mark.parametrize("first_order", [False, True])
    def test_data_that_are_not_numbers(self, backend: Backend, place: int, first_order: bool, algorithm: Any) -> None:
        names = HEAD if algorithm is ANILAlgorithm else BODY
        made = options_for(
            algorithm,
            REGRESSION.model(backend, REGRESSION.start()),
            AdaptedLayers=names,
            UseFirstOrder=first_order,
        )
        learner = algorithm(made)
        sets = REGRESSION.sets(3)
        learner.MetaTrain(batch_of(backend, sets))
        wrong = [np.array(values) for values in sets[1]]
        wrong[place][0, 0] = np.nan
        role = "support" if place < 2 else "query"
        message = rf"^the {role} loss of task 1 \(task 1\) is not finite; nothing was changed"
        with untouched(learner), pytest.raises(InvalidOperationException, match=message):
            learner.MetaTrain(batch_of(backend, [sets[0], tuple(wrong), sets[2]]))

    def test_inner_steps_that_run_away(self, backend: Backend) -> None:
        model = REGRESSION.model(backend, REGRESSION.start())
        learner = ANILAlgorithm(ANILOptions(model, AdaptedLayers=HEAD, InnerLearningRate=1e250))
        with untouched(learner), pytest.raises(InvalidOperationException, match=r"adapted parameter vector of task 0"):
            learner.MetaTrain(batch_of(backend, REGRESSION.sets(2)))
