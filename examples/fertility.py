"""Forecast the births per woman of countries from their first years, and compare with usual methods.

A country is a task: its first years are the support set, all later years the query set. Training never uses the
countries of the test folds. The World Bank's data come with statsmodels (1960 to 2013, 219 countries).

python examples/fertility.py            # one fold in five; needs statsmodels and scikit-learn
python examples/fertility.py --folds 5
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from statsmodels.datasets import fertility
from statsmodels.regression.mixed_linear_model import MixedLM
from tqdm import trange

from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import TableLoader
from aidotnet_py.nn import mlp

FOLDS = 5

Curve: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
# Maps known years and rates of a country, and the query years, to rates in the query years.
Forecast: TypeAlias = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def curves_of_countries() -> dict[str, Curve]:
    """Years and births per woman of each country with at least forty years."""
    table = fertility.load_pandas().data
    years = [name for name in table.columns if name.isdigit()]
    curves: dict[str, Curve] = {}
    for country, rates in zip(table["Country Name"], table[years].to_numpy(float), strict=True):
        known = np.isfinite(rates)
        if known.sum() >= 40:
            curves[country] = np.array(years, float)[known], rates[known]
    return curves


def table_of(curves: Mapping[str, Curve]) -> dict[str, Any]:
    return {
        "country": [name for name, (years, _) in curves.items() for _ in years],
        "year": np.concatenate([years for years, _ in curves.values()]),
        "rate": np.concatenate([rates for _, rates in curves.values()]),
    }


def carried_forward(train: Mapping[str, Curve], known: int) -> Forecast:
    return lambda years, rates, asked: np.full(len(asked), rates[-1])


def own_line(train: Mapping[str, Curve], known: int) -> Forecast:
    """A straight line through the country's known years."""
    return lambda years, rates, asked: np.polyval(np.polyfit(years, rates, 1), asked)


def pooled_line(train: Mapping[str, Curve], known: int) -> Forecast:
    table = table_of(train)
    line = np.polyfit(table["year"], table["rate"], 1)
    return lambda years, rates, asked: np.polyval(line, asked)


def mixed_effects(train: Mapping[str, Curve], known: int) -> Forecast:
    """One parabola for all countries plus a line per country, predicted from its known years (BLUP)."""
    table = table_of(train)

    def designs(years: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        t = (years - 1985) / 25
        return np.stack([np.ones_like(t), t, t * t], 1), np.stack([np.ones_like(t), t], 1)

    fixed, random = designs(table["year"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = MixedLM(table["rate"], fixed, groups=np.array(table["country"]), exog_re=random).fit()
    beta, covariance, noise = np.asarray(fitted.fe_params), np.asarray(fitted.cov_re), float(fitted.scale)

    def forecast(
        years: NDArray[np.float64], rates: NDArray[np.float64], asked: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        (x, z), (x_asked, z_asked) = designs(years), designs(asked)
        spread = z @ covariance @ z.T + noise * np.eye(len(years))
        own = covariance @ z.T @ np.linalg.solve(spread, rates - x @ beta)
        predicted: NDArray[np.float64] = x_asked @ beta + z_asked @ own
        return predicted

    return forecast


def boosting(train: Mapping[str, Curve], known: int) -> Forecast:
    """Gradient boosting of the change since the last known year, on features of the known years."""

    def features(
        years: NDArray[np.float64], rates: NDArray[np.float64], asked: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        slope = np.polyfit(years, rates, 1)[0]
        of_country = [rates[-1], rates.mean(), slope, rates[-1] - rates[-4], years[-1]]
        return np.column_stack([asked - years[-1], np.tile(of_country, (len(asked), 1))])

    rows = [features(y[:known], r[:known], y[known:]) for y, r in train.values()]
    changes = [r[known:] - r[known - 1] for _, r in train.values()]
    model = HistGradientBoostingRegressor(random_state=0).fit(np.concatenate(rows), np.concatenate(changes))
    return lambda years, rates, asked: rates[-1] + model.predict(features(years, rates, asked))


def meta_learned(name: str, steps: int, seed: int) -> Callable[[Mapping[str, Curve], int], Forecast]:
    def train_on(train: Mapping[str, Curve], known: int) -> Forecast:
        loader = TableLoader(table_of(train), task="country", target="rate", order="year", support=known, seed=seed)
        encoding = loader.encoding
        model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=encoding.input_shape, seed=seed)
        shared: dict[str, Any] = {"DataLoader": loader, "MetaBatchSize": 16, "OuterLearningRate": 0.002}
        learner: Any = (
            MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=5, InnerLearningRate=0.05, **shared))
            if name == "MAML"
            else iMAMLAlgorithm(
                iMAMLOptions.FromPaper(
                    model,
                    Lambda=2.0,
                    AdaptationSteps=16,
                    InnerLearningRate=0.02,
                    Curvature="gauss-newton",
                    **shared,
                )
            )
        )
        for _ in trange(steps, desc=name, leave=False, disable=None):
            learner.MetaTrainStep(16)

        def forecast(
            years: NDArray[np.float64], rates: NDArray[np.float64], asked: NDArray[np.float64]
        ) -> NDArray[np.float64]:
            adapted = learner.Adapt(encoding.task({"year": years, "rate": rates}))
            predicted: NDArray[np.float64] = encoding.decode(adapted.Predict(encoding.inputs({"year": asked})))
            return predicted.ravel()

        return forecast

    return train_on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=15, help="known years of a country (default: 15)")
    parser.add_argument("--steps", type=int, default=1500, help="meta-training steps (default: 1500)")
    parser.add_argument("--folds", type=int, default=1, choices=range(1, FOLDS + 1), help="test folds (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of folds, weights and training tasks (default: 0)")
    arguments = parser.parse_args()

    curves = curves_of_countries()
    countries = np.random.default_rng(arguments.seed).permutation(sorted(curves))
    methods: dict[str, Callable[[Mapping[str, Curve], int], Forecast]] = {
        "last value carried forward": carried_forward,
        "line through the known years": own_line,
        "one line for all countries": pooled_line,
        "mixed effects": mixed_effects,
        "gradient boosting": boosting,
        "MAML": meta_learned("MAML", arguments.steps, arguments.seed),
        "iMAML": meta_learned("iMAML", arguments.steps, arguments.seed),
    }
    errors: dict[str, list[float]] = {name: [] for name in methods}
    for fold in range(arguments.folds):
        test = countries[fold::FOLDS]
        train = {name: curve for name, curve in curves.items() if name not in set(test)}
        for name, method in methods.items():
            forecast = method(train, arguments.years)
            for country in test:
                years, rates = curves[country]
                known, later = slice(None, arguments.years), slice(arguments.years, None)
                found = forecast(years[known], rates[known], years[later])
                errors[name].append(float(np.abs(found - rates[later]).mean()))

    count = len(errors["MAML"])
    print(f"births per woman, {count} countries that were not trained on, from their first {arguments.years} years:")
    print("mean absolute error of the later years, mean over countries ± 95 %")
    for name, of_countries in sorted(errors.items(), key=lambda pair: np.mean(pair[1])):
        half = 1.96 * np.std(of_countries, ddof=1) / np.sqrt(count)
        print(f"  {name:<30} {np.mean(of_countries):6.3f} ± {half:.3f}")


if __name__ == "__main__":
    main()
