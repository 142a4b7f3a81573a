"""The commands that train, go on and evaluate."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from aidotnet_py.arguments import COUNT, refusal
from aidotnet_py.cli.completion import names
from aidotnet_py.cli.paths import path_of
from aidotnet_py.cli.refusals import INTERRUPTED, Debug, refusals
from aidotnet_py.cli.workers import Scheduler, Workers
from aidotnet_py.comparison import ALGORITHMS, PROBLEMS
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.meta_learning import MetaLearnerBase, MetaTrainingResult
from aidotnet_py.paths import check_path
from aidotnet_py.runs import RunFolder
from aidotnet_py.runs.data_sources import open_data
from aidotnet_py.runs.executors import executor_of
from aidotnet_py.runs.learners import make_learner
from aidotnet_py.runs.logs import LOGS, logs_of
from aidotnet_py.runs.opening import checkpoint_of, learner_of
from aidotnet_py.runs.own_data import open_new_tasks
from aidotnet_py.runs.run_data import DataFacts
from aidotnet_py.runs.settings import RunSettings, changed

__all__ = ["Checkpoint", "add_commands", "settings_of"]

_AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, such as options.AdaptationSteps=3 or keep=5; may be given several times."),
]
Checkpoint = Annotated[str, typer.Option(help="'best', 'last', or a file, first looked for in the run's folder.")]
# What a resume may change: where things are, what is written, and options, of which `Train` tells itself.
_MAY_CHANGE = {"archive", "keep", "log", "options"}
_Verbose = Annotated[bool, typer.Option("--verbose", help="Log evaluations and checkpoints.")]


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help=f"What to learn from: {', '.join(PROBLEMS)}, a folder of class folders, or a table.",
            autocompletion=names(PROBLEMS),
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The folder of the run, new or empty.", show_default=False, parser=path_of)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings in TOML, which other options override.", parser=path_of)
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(ALGORITHMS)}.", show_default="MAML", autocompletion=names(ALGORITHMS)),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            help="options.NumMetaIterations.",
            show_default=", ".join(f"{problem.iterations} on {name}" for name, problem in PROBLEMS.items())
            + ", 500 on a folder, 1000 on a table",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, training tasks and noise.", show_default="0")] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Support examples, per class if there are classes.",
            show_default=", ".join(f"{problem.shots} on {name}" for name, problem in PROBLEMS.items())
            + ", 1 on a folder, half of a group's rows on a table",
        ),
    ] = None,
    archive: Annotated[
        str | None, typer.Option(help="Omniglot's archive or folder, such as images_background_small1.zip.")
    ] = None,
    ways: Annotated[
        int | None, typer.Option(help="Classes of a task, for a folder.", show_default="5, or fewer for few classes")
    ] = None,
    size: Annotated[int | None, typer.Option(help="The side of images, for a folder.", show_default="32")] = None,
    task: Annotated[str | None, typer.Option(help="The column of groups, for a table.")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict, for a table.")] = None,
    order: Annotated[
        str | None, typer.Option(help="A column of times: the first rows of a group are its support set.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="options.EarlyStoppingPatience: evaluations.", show_default="no early stopping")
    ] = None,
    keep: Annotated[int | None, typer.Option(help="How many checkpoints are kept.", show_default="3")] = None,
    log: Annotated[
        str | None,
        typer.Option(
            help=f"Logs beside the folder's own files: names with commas between, of {', '.join(LOGS)}.",
            show_default="json",
            autocompletion=names(LOGS),
        ),
    ] = None,
    settings: _Set = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: _AsJson = False,
    verbose: _Verbose = False,
    debug: Debug = False,
) -> None:
    """Train an algorithm, and keep metrics, checkpoints and curves in a folder; after Ctrl-C, `resume` continues.

    Examples: aidotnet-py train sinusoid --run runs/first --set options.AdaptationSteps=5;
    aidotnet-py train growth.csv --task child --target height --run runs/growth
    """
    with refusals("train", debug=debug):
        if run is None:
            raise ArgumentException(refusal("--run", "the path of a new or empty folder", None))
        values = {} if config is None else RunSettings.read(config)
        flags: dict[str, Any] = {
            "data": data,
            "algorithm": algorithm,
            "seed": seed,
            "shots": shots,
            "archive": archive,
            "keep": keep,
        }
        flags |= {"ways": ways, "size": size, "task": task, "target": target, "order": order}
        flags["log"] = None if log is None else [name.strip() for name in log.split(",")]
        values |= {name: value for name, value in flags.items() if value is not None}
        options = {"NumMetaIterations": iterations, "EarlyStoppingPatience": patience}
        own: Any = values.get("options", {})
        if isinstance(own, dict):
            values["options"] = {**own, **{name: value for name, value in options.items() if value is not None}}
        made = RunSettings.of(_with_whole_paths(_with_all(values, settings)))
        data_of_run = open_data(made)
        learner = make_learner(made, data_of_run)
        folder = _CommandFolder(run, keep=made.keep, settings={**made.as_dict(), **data_of_run.settings()})
        callbacks = logs_of(made.log, folder)
        learner.Options.Executor = executor_of(workers, scheduler)
        with _told(verbose), _under_way(learner):
            result = learner.Train(run=folder, callbacks=callbacks)
        _report(folder, result, as_json)


def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", parser=path_of)],
    settings: _Set = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: _AsJson = False,
    verbose: _Verbose = False,
    debug: Debug = False,
) -> None:
    """Continue a run that was stopped or killed, with the same bits as an uninterrupted run.

    Example: aidotnet-py resume runs/first --set options.NumMetaIterations=4000
    """
    with refusals("resume", debug=debug):
        made, facts = settings_of(RunFolder(run), settings)
        learner = make_learner(made, open_data(made, facts))
        folder = _CommandFolder(run, keep=made.keep, settings={**made.as_dict(), **facts.settings()})
        callbacks = logs_of(made.log, folder)
        learner.Options.Executor = executor_of(workers, scheduler)
        with _told(verbose), _under_way(learner):
            result = learner.Train(resume=folder, callbacks=callbacks)
        _report(folder, result, as_json)


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", parser=path_of)],
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of class folders, or a table, like the run's own.",
            show_default="what the run held out",
            parser=path_of,
        ),
    ] = None,
    checkpoint: Checkpoint = "best",
    tasks: Annotated[int, typer.Option(help="Number of new tasks, of held-out classes or groups, or of --data.")] = 600,
    as_json: _AsJson = False,
    debug: Debug = False,
) -> None:
    """Evaluate a run's learner on new tasks, with 95 % intervals.

    Examples: aidotnet-py evaluate runs/first --checkpoint last;
    aidotnet-py evaluate runs/growth --data other_clinic.csv
    """
    with refusals("evaluate", debug=debug):
        COUNT.check("--tasks", tasks)
        folder = RunFolder(run)
        made, facts = settings_of(folder, None)
        file = checkpoint_of(folder, checkpoint)
        if data is None:
            loader = open_data(made, facts).test
        else:
            remedy = "evaluate its learner in Python, with aidotnet_py.load and Evaluate"
            loader = open_new_tasks(data, made, facts.require_encoding(run, remedy))
        if made.order is not None:
            # A group is always the same task then; counted several times, tasks would seem to agree.
            tasks = min(tasks, loader.AvailableClasses)
        learner = learner_of(folder, file)
        learner.Options.DataLoader = loader
        result = learner.Evaluate(numTasks=tasks)
        loss, accuracy = result.GetLossConfidenceInterval(), result.GetAccuracyConfidenceInterval()
        numbers = {"Loss": loss, "Accuracy": accuracy}
        if as_json:
            _print_json(
                {
                    "run": str(run),
                    "data": None if data is None else str(data),
                    "checkpoint": file.name,
                    "Iteration": learner.CurrentIteration,
                    "NumTasks": tasks,
                    **{name: float(interval.Mean) for name, interval in numbers.items()},
                    **{f"{name}HalfWidth": float(interval.HalfWidth) for name, interval in numbers.items()},
                }
            )
            return
        where = "" if data is None else f" of {data}"
        print(f"{file.name} after {learner.CurrentIteration} steps, on {tasks} new tasks{where}, with 95 % intervals")
        print(f"loss      {float(loss.Mean):.4f} ± {float(loss.HalfWidth):.4f}")
        if float(accuracy.Mean) == float(accuracy.Mean):
            print(f"accuracy  {float(accuracy.Mean):.2%} ± {float(accuracy.HalfWidth):.2%}")


def add_commands(app: typer.Typer) -> None:
    """Give the command line these commands."""
    for command in (train, resume, evaluate):
        app.command()(command)


class _CommandFolder(RunFolder):
    """A run's folder whose remedy is a command."""

    @property
    def remedy(self) -> str:
        return f"run: aidotnet-py resume {shlex.quote(str(self.path))}"


def _with_all(values: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    for text in settings or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ArgumentException(refusal("--set", "NAME=VALUE, such as seed=1", text))
        values = changed(values, name.strip(), value.strip())
    return values


def _with_whole_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which an archive and data of one's own are found from any folder."""
    # Of any kind, as files hold them; the settings refuse what is no text.
    given = {name: values[name] for name in ("data", "archive") if isinstance(values.get(name), str)}
    named = {name: check_path(name, text, "a name or a path") for name, text in given.items()}
    paths = {name: path for name, path in named.items() if name != "data" or given[name] not in PROBLEMS}
    return {**values, **{name: str(path.resolve()) for name, path in paths.items() if path.exists()}}


def settings_of(folder: RunFolder, settings: list[str] | None) -> tuple[RunSettings, DataFacts]:
    """Return the settings of a run with changes, and what it keeps about its data.

    Raises
    ------
    ArgumentException
        When a change would make it another run.
    """
    held: Any = folder.read().get("settings")
    if not isinstance(held, dict):
        raise ArgumentException(
            f"{str(folder.path)!r} must be a run of this command, got a run of Train; resume it from Python"
        )
    values = cast("dict[str, Any]", {**held})
    facts = DataFacts.take_from(values)
    began, made = RunSettings.of(values), RunSettings.of(_with_whole_paths(_with_all(values, settings)))
    _require_same_run(began, made)
    return made, facts


def _require_same_run(began: RunSettings, made: RunSettings) -> None:
    """Raise ArgumentException if settings differ that say what a run learns from, and with what."""
    before, after = began.as_dict(), made.as_dict()
    # Data of one's own may have moved; what they must have in common is checked where they are opened.
    may_change = {*_MAY_CHANGE, "data"} if PROBLEMS.keys().isdisjoint({began.data, made.data}) else _MAY_CHANGE
    differences = [name for name in after if name not in may_change and after[name] != before[name]]
    if differences:
        told = " and ".join(f"{name}={after[name]!r:.80} for {before[name]!r:.80}" for name in differences)
        raise ArgumentException(
            f"--set must leave {', '.join(differences)} as the run began, got {told}; train a new run with it"
        )


@contextmanager
def _told(verbose: bool) -> Generator[None]:
    """Say how to go on after Ctrl-C, and show logs."""
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", force=True)
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"aidotnet-py: {'. '.join(getattr(error, '__notes__', ['interrupted']))}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from error


@contextmanager
def _under_way(learner: MetaLearnerBase[Any, Any, Any]) -> Generator[None]:
    """Have an error of the system, such as a full disk, fail the run if steps were taken: no argument is wrong then."""
    try:
        yield
    except OSError as error:
        if learner.training_result is None:
            raise
        failure = InvalidOperationException(str(error))
        for note in getattr(error, "__notes__", []):
            failure.add_note(note)
        raise failure from error


def _report(folder: RunFolder, result: MetaTrainingResult[Any], as_json: bool) -> None:
    best = folder.best.name if folder.best.exists() else None
    if as_json:
        _print_json(
            {
                "run": str(folder.path),
                "TotalIterations": result.TotalIterations,
                "FinalLoss": float(result.FinalLoss),
                "FinalAccuracy": float(result.FinalAccuracy),
                "best": best,
                "checkpoints": [file.name for file in folder.checkpoints],
            }
        )
        return
    accuracy = float(result.FinalAccuracy)
    told = f"loss {float(result.FinalLoss):.4f}" + (f", accuracy {accuracy:.2%}" if accuracy == accuracy else "")
    print(f"{result.TotalIterations} steps, the last with {told}")
    print(f"run: {folder.path}" + (f", best learner: {folder.best}" if best else ""))


def _print_json(values: dict[str, Any]) -> None:
    """Print numbers as JSON has them: NaN is null."""
    print(json.dumps({name: None if value != value else value for name, value in values.items()}))
