"""The trials of a search (condmix.experiments.search): Optuna suggests their values, and runs measure them.

Optuna's study lies in .checkpoints/searches/<name>.sqlite. A kill leaves a trial RUNNING there, and the next start
makes its run with the same values. The study's own name holds a hash of all that decides what trials measure, so a
change of code, settings, space or measure begins another one.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tqdm import tqdm

from condmix import CondmixError
from condmix.experiments.grid import Baseline, done
from condmix.experiments.runner import Runner
from condmix.experiments.search import Objective, Range, Search
from condmix.files.artifacts import damaged
from condmix.files.atomic import exclusive
from condmix.metrics import Measure
from condmix.runtime.oserrors import one_line
from condmix.runtime.seeds import derive
from condmix.settings.schema import Params, fields_at

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SHOWN = 10  # trials of the final table
CAVEAT = """\
"judged by" is of the last test pictures, and the best was chosen by it, so it flatters the best.
"reported" is of other pictures, which chose nothing. Both are of one training: a claim that settings are better
takes a grid of them with several seeds."""


def distributions(search: Search) -> dict[str, BaseDistribution]:
    """The space as Optuna knows it; of a setting that is a whole number, whole numbers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, BaseDistribution] = {}
    for key, dimension in search.space.items():
        try:
            if isinstance(dimension, tuple):
                space[key] = CategoricalDistribution([_label(choice) for choice in dimension])
            elif _is_whole(key, dimension):
                space[key] = IntDistribution(dimension.low, dimension.high, dimension.log, dimension.step or 1)
            elif search.sampler == "grid" and dimension.step is None:
                raise ValueError("the sampler grid needs a list of choices, or a range with a step")
            else:
                space[key] = FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)
        except ValueError as error:
            raise CondmixError(f"{search.where}: space.{key}: {error}") from None
    return space


def _is_whole(key: str, dimension: Range) -> bool:
    """Whether the setting `key` takes whole numbers only; of one that has no type, whether both bounds are whole."""
    *section, last = key.split(".")
    field = fields_at(Params, tuple(section)).get(last)
    kinds = [type(dimension.low), type(dimension.high)] if field is None else list(_parts(field.annotation))
    return int in kinds and float not in kinds


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _label(choice: Any) -> Any:
    """A choice as Optuna stores it, which knows no lists and mappings."""
    return json.dumps(choice) if isinstance(choice, list | tuple | dict) else choice


def values_of(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    """The settings of a trial."""
    labels = {key: {_label(choice): choice for choice in d} for key, d in search.space.items() if isinstance(d, tuple)}
    return {key: labels[key][value] if key in labels else value for key, value in trial.params.items()}


def open_study(path: Path, name: str, measure: Measure) -> Study:
    """The study of this name in an SQLite file, which a kill does not damage; a new one where there is none."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    direction = (
        optuna.study.StudyDirection.MAXIMIZE if measure.higher_is_better else optuna.study.StudyDirection.MINIMIZE
    )
    try:
        return optuna.create_study(
            storage=f"sqlite:///{path}", study_name=name, direction=direction, load_if_exists=True
        )
    except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:  # RuntimeError: of a newer Optuna
        raise damaged(path, one_line(error), f"condmix experiments search {path.stem}") from None


def suggest(study: Study, search: Search) -> FrozenTrial:
    """A new trial, RUNNING, with values by those before it.

    Its seed is its own, so that a search that was killed goes on as if it had not been. A copy in memory is asked, and
    the trial written in one piece: a kill never leaves one with half of its values.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    samplers: dict[str, Callable[..., BaseSampler]] = {
        "tpe": optuna.samplers.TPESampler,
        "gp": optuna.samplers.GPSampler,
        "random": optuna.samplers.RandomSampler,
        "grid": optuna.samplers.BruteForceSampler,
    }
    seed = derive(search.sampler_seed, "trial", len(study.trials))
    copy = optuna.create_study(direction=study.direction, sampler=samplers[search.sampler](seed=seed))
    copy.add_trials(study.trials)
    space = distributions(search)
    study.add_trial(create_trial(state=TrialState.RUNNING, params=copy.ask(space).params, distributions=space))
    return study.trials[-1]


StartTrial = Callable[[Mapping[str, Any]], Future[float]]  # a trial's settings -> its run
Figure = Callable[[Mapping[str, Any]], float]  # a trial's settings -> what its finished run measured


def optimise(study: Study, search: Search, trials: int, jobs: int, start: StartTrial, figure: Figure) -> None:
    """Bring the study to so many trials, `jobs` at a time, beginning with those that a kill left RUNNING."""
    from optuna.trial import TrialState

    left = [trial for trial in study.trials if trial.state is TrialState.RUNNING]
    running: dict[Future[float], FrozenTrial] = {}
    with tqdm(total=max(trials, len(study.trials)), initial=len(study.trials) - len(left), unit="trial") as bar:
        while True:
            while len(running) < jobs and (left or len(study.trials) < trials):
                trial = left.pop(0) if left else suggest(study, search)
                try:
                    running[start(values_of(search, trial))] = trial
                except CondmixError as error:  # each value is a setting, but not beside the others
                    _failed(study, trial, error, bar)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial = running.pop(future)
                try:
                    future.result()
                except CondmixError as error:
                    _failed(study, trial, error, bar)
                else:
                    study.tell(trial.number, value := figure(values_of(search, trial)))
                    tqdm.write(f"trial {trial.number}: {value:.4g} with {trial.params}", file=sys.stderr)
                    bar.update()


def _failed(study: Study, trial: FrozenTrial, error: CondmixError, bar: tqdm) -> None:
    from optuna.trial import TrialState

    study.tell(trial.number, state=TrialState.FAIL)
    tqdm.write(f"\ntrial {trial.number} failed\n{error}\n", file=sys.stderr)
    bar.update()


def run_search(root: Path, search: Search, trials: int | None, jobs: int) -> str:
    """Make the trials that are missing of `trials`, by default the file's; the table of the best."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise CondmixError(
            "condmix experiments search needs Optuna, which is not installed: pip install 'condmix[search]'"
        ) from None
    path = root / ".checkpoints" / "searches" / f"{search.name}.sqlite"
    with (
        exclusive(path.with_suffix(".lock"), f"the search {search.name}"),
        Runner(root, f"search_{search.name}", jobs) as runner,
    ):
        objective = Objective(search, Baseline.read(root, runner.commit, search.profile, search.where))
        name, wanted = objective.study_name, most_trials(search, trials or search.trials)
        study = open_study(path, name, objective.measure)

        def start(values: Mapping[str, Any]) -> Future[float]:
            return runner.start(objective.run(values))

        def figure(values: Mapping[str, Any]) -> float:
            return objective.figures(root, objective.run(values))[0]

        optimise(study, search, wanted, jobs, start, figure)
    return summary(root, objective, study)


def most_trials(search: Search, trials: int) -> int:
    """The trials that were asked for, or, by the sampler grid, as many as there are combinations."""
    space: list[Any] = list(distributions(search).values())
    if search.sampler != "grid":
        return trials
    sizes = [len(d.choices) if hasattr(d, "choices") else round((d.high - d.low) / d.step) + 1 for d in space]
    return min(trials, math.prod(sizes))


def summary(root: Path, objective: Objective, study: Study) -> str:
    """The best trials with both of their figures, what these say, and how to take the best; which trials failed."""
    from optuna.trial import TrialState

    search, measure = objective.search, objective.measure
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    failures = [str(trial.number) for trial in study.trials if trial.state is TrialState.FAIL]
    failed = f"{len(failures)} of {len(study.trials)} trials failed: {', '.join(failures)}; see .checkpoints/logs"
    if not complete:
        raise CondmixError(f"{search.where}: {failed}")
    complete.sort(key=attrgetter("value"), reverse=bool(measure.higher_is_better))
    table = [["trial", "judged by", "reported", *search.space, "experiment"]]
    distinct = {str(trial.params): trial for trial in reversed(complete)}  # the same settings are one experiment
    for trial in [*reversed(distinct.values())][:SHOWN]:
        values = values_of(search, trial)
        run = objective.run(values)
        figures = map(measure.text, objective.figures(root, run))
        table.append([str(trial.number), *figures, *(_shown(values[key]) for key in search.space), run.name])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in table]
    lines += ["", f"{measure.words}, {measure.better}; {CAVEAT}", ""]
    lines += [failed] if failures else []
    best = table[1][-1]
    lines += [f"dvc exp apply {best}"] if best in done(root) else []  # else a clone has its evidence alone
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
