"""The runs of a comparison: what each REF stands for, and in which settings the runs differ.

A run is a REF, or several joined by `+`, which are pooled: runs that differ by their seeds alone.
The first run is the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from activation_store.model_files.files import public_name
from core.errors import RefError
from core.text.redact import redact_value
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import Difference, differences
from pipelines.artifacts.refs import Refs

POOL = "+"
EVALUATE, TRAIN, REPORT = "evaluate", "train", "report"
_TABLES = ("conversations", "questions")
"""Inputs of an evaluation that are its data."""
_MOST_NAMED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The target of an evaluated decoder.

    Attributes:
        name: reference under which it was found, without folders of a machine.
        adapter: likewise its own adapter, or None.
        digests: what it is: digests of weights, configuration, tokenizer, chat template, adapter.
    """

    name: str
    adapter: str | None
    digests: Mapping[str, str]

    def __str__(self) -> str:
        """Name the target and its weights: `embedded, weights b179c9523d0e`."""
        adapter = f" with {self.adapter}" if self.adapter else ""
        weights = self.digests.get("weights")
        digest = "" if weights is None else f", weights {weights.rpartition(':')[2][:12]}"
        return f"{self.name}{adapter}{digest}"


@dataclass(frozen=True, kw_only=True, slots=True)
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
        return [steps[EVALUATE] for steps in self.sets]

    @property
    def target(self) -> Target:
        """The decoder's own target, which all pooled runs share."""
        evaluation = self.evaluations[0]
        where = evaluation.record.get("locations") or {}
        adapter = where.get("adapter")
        return Target(
            name=public_name(str(where.get("model") or "a target without a name")),
            adapter=None if adapter is None else public_name(str(adapter)),
            digests=evaluation.identity.get("external") or {},
        )

    @property
    def foreign(self) -> bool:
        """Whether activations of another target than the decoder's own were read."""
        return any(found.identity["config"].get("foreign_target") for found in self.evaluations)

    @property
    def decoders(self) -> set[str]:
        """Keys of the decoders; none where a REF names an evaluation alone."""
        return {steps[TRAIN].key for steps in self.sets if TRAIN in steps}


def find_runs(refs: Refs, names: Sequence[str]) -> tuple[Run, ...]:
    """Find the runs that `names` stand for.

    Raises:
        RefError: a name stands for nothing, for no evaluation, or stands twice; a pool has
            one evaluation or decoder twice, or runs that differ by more than their seeds; or there
            is but one name.
        DamagedError: bytes of an evaluation are not those committed.
    """
    if len(set(names)) != len(names) or len(names) < 2:
        raise RefError(f"compare: got {', '.join(names)}, expected at least two different REFs.")
    runs = tuple(Run(name=name, sets=tuple(_resolve_pool(refs, name))) for name in names)
    for run in runs:
        _check_pool(run)
    return runs


def changed_settings(runs: Sequence[Run]) -> list[tuple[str, str, Difference]]:
    """List (run, step, field) of everything in which a run differs from the first.

    Targets and data count as settings: `target.weights`, `data.conversations`.
    """
    first = runs[0].sets[0]
    return [
        (run.name, step, change)
        for run in runs[1:]
        for step, change in _changes(first, run.sets[0])
    ]


def single_seed_runs(runs: Sequence[Run]) -> list[str]:
    """Name the runs of one training each, of which a difference says nothing about settings.

    None are named where all runs are the same decoder, on other rows or another target.
    """
    if runs[0].decoders and all(run.decoders == runs[0].decoders for run in runs):
        return []
    return [run.name for run in runs if len(run.sets) == 1]


def _resolve_pool(refs: Refs, name: str) -> Iterator[Mapping[str, Artifact]]:
    # a path may hold the sign that joins pooled runs
    for part in [name] if Path(name).expanduser().exists() else name.split(POOL):
        found = refs.resolve_set(part)
        if EVALUATE not in found:
            raise RefError(
                f"{part}: has no evaluation ({', '.join(found)}); run its experiment to the end."
            )
        found[EVALUATE].check_bytes()
        yield found


def _check_pool(run: Run) -> None:
    """Refuse a pool whose runs are no seeds of one setting."""
    if len({found.key for found in run.evaluations}) < len(run.sets):
        raise RefError(
            f"compare: {run.name} names the same evaluation twice, expected runs with "
            "different seeds."
        )
    if len(run.decoders) < sum(TRAIN in steps for steps in run.sets):
        raise RefError(
            f"compare: {run.name} names the same decoder twice, expected decoders trained "
            "with different seeds."
        )
    other = {
        f"{step}.{change.field}": change
        for steps in run.sets[1:]
        for step, change in _changes(run.sets[0], steps)
        if change.field.rpartition(".")[2] != "seed"
    }
    if other:
        changes = list(dict.fromkeys(map(str, other.values())))  # of data, every step has the same
        named = changes[:_MOST_NAMED]
        more = f" and {len(changes) - len(named)} more" if len(changes) > len(named) else ""
        raise RefError(
            f"compare: the runs pooled as {run.name} differ in more than their seeds "
            f"({'; '.join(named)}{more}), so a pooled interval would describe none of these "
            "settings. Compare them as separate runs."
        )


def _changes(
    one: Mapping[str, Artifact], other: Mapping[str, Artifact]
) -> Iterator[tuple[str, Difference]]:
    """Yield (step, field) of everything that decides a result and is not the same."""
    for step, artifact in other.items():
        if step in one and step != REPORT:
            for change in differences(_deciding(one[step]), _deciding(artifact)):
                yield step, change


def _deciding(artifact: Artifact) -> dict[str, object]:
    """Return what decides the output of an artifact, field by field, without credentials."""
    identity = artifact.identity
    inputs = identity.get("inputs") or {}
    found: dict[str, object] = {
        **redact_value(identity["config"]),
        "version": identity.get("version"),
        "data": {role: inputs[role]["digest"] for role in _TABLES if role in inputs},
    }
    if artifact.kind == EVALUATE:  # the other steps of the run have the same target
        found["target"] = identity.get("external") or {}
    return found
