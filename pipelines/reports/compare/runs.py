"""Several evaluated runs on the questions that all of them were asked: which differ, and how far?

A run is a REF, or several joined by `+`, which are pooled: runs that differ by their seed alone.
The first is the baseline that the others are held against, paired by control. A difference is
marked where its 95 % interval excludes zero *and* its p is below 0.05, adjusted for all the
differences asked about (Holm): of a sign-flip test over controls, and of pools the larger of that
and of a t test that knows how few their runs are. What is measured of written answers, and
identification, are asked about by themselves (pipelines/reports/comparison_answers.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DamagedError, DataError, RefError
from core.tables import SPLITS, VIEWS
from evaluators.measure.panel import UNINFORMED, best, least_above, mean
from evaluators.measure.result_files import ANSWERS_FILE, LOSSES_FILE
from evaluators.stats.estimates import Statistic, over_controls
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.identity import Difference, differences
from pipelines.artifacts.refs import Refs
from pipelines.reports.compare.answers import answer_cases
from pipelines.reports.compare.cells import Case, cell_of, marked, p_of
from pipelines.reports.run.data import ordered
from pipelines.reports.run.files import Leaf, table_rows

POOL = "+"
_SHOWING = ("report",)
"""Steps that show results, whose settings decide none."""
METRICS = ("right", "below_untrained", "grounded_gain", "information_gain")
"""What is compared, in nats a token; of `right` less is better, of the others more."""
Key = tuple[str, str, str]
"""Control, example and question."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One side of a comparison.

    Attributes:
        name: the REF as it was given.
        sets: the artifacts of each pooled run, by step.
    """

    name: str
    sets: tuple[Mapping[str, Artifact], ...]

    @property
    def evaluations(self) -> list[Artifact]:
        """The evaluation of each pooled run."""
        return [own["evaluate"] for own in self.sets]

    @property
    def foreign(self) -> bool:
        """Whether activations of another target than the decoder's own were read."""
        return any(found.identity["config"].get("foreign_target") for found in self.evaluations)

    @property
    def decoders(self) -> set[str]:
        """Keys of the decoders; none where a REF names an evaluation alone."""
        return {own["train"].key for own in self.sets if "train" in own}


@dataclass(frozen=True, slots=True)
class Answers:
    """One question that all runs wrote an answer to."""

    split: str
    view: str
    control: str
    question: str
    gold: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Any number of runs, side by side.

    Attributes:
        cases: answer losses and gains.
        written: what is measured of written answers, and identification, where it was.
    """

    runs: tuple[Run, ...]
    cases: tuple[Case, ...]
    written: tuple[Case, ...]
    answers: tuple[Answers, ...]


def find_runs(refs: Refs, names: Sequence[str]) -> tuple[Run, ...]:
    """The runs that `names` stand for.

    Raises:
        RefError: a name stands for nothing, for no evaluation, or stands twice; a pool has
            one evaluation or decoder twice; or there is but one name.
        DamagedError: bytes of an evaluation are not those committed.
    """
    if len(set(names)) != len(names) or len(names) < 2:
        raise RefError(f"compare: got {', '.join(names)}; expected at least two other REFs.")
    runs = tuple(Run(name=name, sets=tuple(_sets(refs, name))) for name in names)
    for run in runs:
        if len({found.key for found in run.evaluations}) < len(run.sets):
            raise RefError(
                f"compare: {run.name} names one evaluation twice; pool runs of several seeds."
            )
        if len(run.decoders) < sum("train" in own for own in run.sets):
            raise RefError(
                f"compare: {run.name} names one decoder twice, which tells nothing of another "
                "seed; pool runs of several seeds."
            )
    return runs


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare runs on the questions that all of them were asked.

    Raises:
        DataError: there is no such question.
    """
    losses = [[_losses(found.data) for found in run.evaluations] for run in runs]
    every = [one for side in losses for one in side]
    shared = set(every[0]).intersection(*every[1:])
    cases = [
        _case(split, view, [[one[split, view] for one in side] for side in losses])
        for split in ordered((s for s, _ in shared), SPLITS)
        for view in ordered((v for s, v in shared if s == split), VIEWS)
    ]
    cases = [case for case in cases if case.controls]
    if not cases:
        raise DataError(
            f"compare: {', '.join(run.name for run in runs)} have no question in common; expected "
            "evaluations of the same data, splits and views."
        )
    data = [[found.data for found in run.evaluations] for run in runs]
    written = marked(answer_cases(data))
    return Comparison(tuple(runs), marked(cases), written, tuple(_answers(runs)))


def changed_settings(runs: Sequence[Run]) -> list[tuple[str, str, Difference]]:
    """(run, step, field) of every setting in which a run differs from the first."""
    first = runs[0].sets[0]
    return [
        (run.name, step, change)
        for run in runs[1:]
        for step, change in _changes(first, run.sets[0])
    ]


def mixed_pools(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(run, settings) of each pool whose runs differ by more than seeds: its interval is then about
    no one setting."""
    out = []
    for run in runs:
        fields = {
            f"{step}.{change.field}"
            for own in run.sets[1:]
            for step, change in _changes(run.sets[0], own)
            if change.field.rpartition(".")[2] != "seed"
        }
        if fields:
            out.append((run.name, ", ".join(sorted(fields))))
    return out


def single_seeds(runs: Sequence[Run]) -> list[str]:
    """The runs of one training each, of which a difference says nothing about their settings; none
    where all are the same decoder, on other rows or another target."""
    if runs[0].decoders and all(run.decoders == runs[0].decoders for run in runs):
        return []
    return [run.name for run in runs if len(run.sets) == 1]


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every number as a row; differences are to the first run."""
    return [
        {
            "split": case.split,
            "view": case.view,
            "metric": metric,
            "run": run.name,
            "foreign_target": run.foreign,
            **_numbers("", cell.leaf),
            "n": case.controls if cell.leaf is None else cell.leaf.n,
            **_numbers("difference_", cell.difference),
            "p": cell.p,
            "differs": cell.differs,
        }
        for case in (*comparison.cases, *comparison.written)
        for metric, cells in case.cells.items()
        for run, cell in zip(comparison.runs, cells, strict=True)
    ]


def _changes(
    one: Mapping[str, Artifact], other: Mapping[str, Artifact]
) -> Iterator[tuple[str, Difference]]:
    """(step, field) of every setting that decides a result and is not the same."""
    for step, artifact in other.items():
        if step in one and step not in _SHOWING:
            for change in differences(one[step].identity["config"], artifact.identity["config"]):
                yield step, change


def _numbers(prefix: str, leaf: Leaf | None) -> dict[str, float | None]:
    values = (None, None, None) if leaf is None else (leaf.estimate, leaf.low, leaf.high)
    return {f"{prefix}{k}": v for k, v in zip(("estimate", "low", "high"), values, strict=True)}


def _sets(refs: Refs, name: str) -> Iterator[Mapping[str, Artifact]]:
    # a path may hold the sign that joins pooled runs
    for part in [name] if Path(name).expanduser().exists() else name.split(POOL):
        found = refs.resolve_set(part)
        if "evaluate" not in found:
            raise RefError(
                f"{part}: has no evaluation ({', '.join(found)}); run its experiment to the end."
            )
        if bad := found["evaluate"].damaged_files():
            artifact = found["evaluate"]
            raise DamagedError(
                f"{artifact.short}: {', '.join(bad)} is not as it was committed. "
                "Run the experiment again: it notices, and evaluates anew.",
                artifact.path,
            )
        yield found


def _losses(data: Path) -> dict[tuple[str, str], dict[Key, dict[str, float]]]:
    """Loss by split and view, question and condition."""
    out: dict[tuple[str, str], dict[Key, dict[str, float]]] = {}
    for row in table_rows(data / LOSSES_FILE):
        key = (row["control_id"], row["example_id"], row["question"])
        own = out.setdefault((row["split"], row["view"]), {})
        own.setdefault(key, {})[row["condition"]] = row["loss"]
    return out


def _case(split: str, view: str, sides: list[list[dict[Key, dict[str, float]]]]) -> Case:
    """One split and view of all runs, differences not yet marked."""
    every = [one for side in sides for one in side]
    keys = sorted(set(every[0]).intersection(*every[1:]))
    if not keys:
        return Case(split, view, 0, 0, {})
    conditions = set(every[0][keys[0]]).intersection(*(one[keys[0]] for one in every))
    names = sorted(conditions)
    of = np.array([control for control, _, _ in keys])
    values = [[_columns(one, keys, names, of) for one in side] for side in sides]
    controls = len(values[0][0])
    statistics = _statistics(names)
    cells = {
        metric: tuple(cell_of(values[0], side, statistic) for side in values)
        for metric, statistic in statistics.items()
    }
    p = {
        metric: [_p(values[0], side, metric, names, statistic) for side in values]
        for metric, statistic in statistics.items()
    }
    return Case(
        split,
        view,
        controls,
        len(keys),
        {
            metric: tuple(
                own if k == 0 else replace(own, p=p[metric][k]) for k, own in enumerate(line)
            )
            for metric, line in cells.items()
        },
    )


def _columns(
    losses: Mapping[Key, Mapping[str, float]], keys: list[Key], names: list[str], of: np.ndarray
) -> np.ndarray:
    """[C, K] mean losses of each control under each condition."""
    return np.stack(
        [over_controls(np.array([losses[key][name] for key in keys]), of)[1] for name in names], 1
    )


def _statistics(names: list[str]) -> dict[str, Statistic]:
    rivals = [name for name in UNINFORMED if name in names]
    return {
        "right": mean(names, "right"),
        "below_untrained": least_above(names, ["untrained_right"], "right"),
        "grounded_gain": least_above(names, ["other"], "right"),
        "information_gain": least_above(names, rivals, "right"),
    }


def _p(
    base: list[np.ndarray],
    side: list[np.ndarray],
    metric: str,
    names: list[str],
    statistic: Statistic,
) -> float | None:
    """p of the difference, each run averaged over its pool, each gain over its own best rival."""
    if side is base:
        return None
    a, b = (_by_control(np.mean(values, 0), metric, names) for values in (base, side))
    return p_of(base, side, b - a, statistic)


def _by_control(values_CK: np.ndarray, metric: str, names: list[str]) -> np.ndarray:
    right = values_CK[:, names.index("right")]
    if metric == "right":
        return right
    rivals = {
        "below_untrained": ["untrained_right"],
        "grounded_gain": ["other"],
        "information_gain": [name for name in UNINFORMED if name in names],
    }[metric]
    rival = best(values_CK, names, rivals)
    assert rival is not None
    return values_CK[:, names.index(rival)] - right


def _answers(runs: Sequence[Run]) -> Iterator[Answers]:
    """Answers to the questions that every run answered; of a pool, those of its first run."""
    tables = [
        {
            (row["split"], row["view"], row["example_id"], row["question"]): row
            for row in table_rows(run.evaluations[0].data / ANSWERS_FILE)
        }
        for run in runs
    ]
    for key, row in tables[0].items():
        if all(key in table for table in tables):
            yield Answers(
                split=row["split"],
                view=row["view"],
                control=row["control"],
                question=row["question"],
                gold=row["gold"],
                texts=tuple(table[key]["right"] for table in tables),
            )
