"""The quality of a run's rows: rules over them, and what the step `quality` measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.table_files import CONVERSATIONS_FILE, QUESTIONS_FILE, read_conversations, read_questions
from evaluators.stats.estimates import Estimate
from generators.quality.check import QUALITY_FILE
from generators.quality.config import RulesConfig
from generators.quality.describe import describe
from pipelines.reports.run.inputs import ReportInputs, ReportStep, artifact_file, json_object

_MOST_COMPARED = 2_000
"""Controls that a page compares for near-duplicates, where no step has compared more."""


@dataclass(frozen=True, slots=True)
class Check:
    """Rows with one flag, and the words of the first."""

    flag: str
    rows: int
    share: float
    example: str
    dropped: bool


@dataclass(frozen=True, slots=True)
class Guessed:
    """How far questions of one kind and type lead to their answers by themselves."""

    name: str
    own: Estimate
    other: Estimate
    above: Estimate
    answerable: Estimate


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """The judge's verdicts on answers or completions: under their own controls, and swapped."""

    name: str
    n: int
    shares: tuple[tuple[str, float, float | None], ...]
    """Verdict, its share, and its share under another control."""
    raw: float | None
    kappa: float | None
    unread: int


@dataclass(frozen=True, slots=True)
class QualityData:
    """All that the section shows."""

    checks: tuple[Check, ...]
    compared: int
    controls: int
    split_twice: int
    """Groups, labels and controls that stand in two splits."""
    shared_questions: float
    shared_answers: float
    guessed: tuple[Guessed, ...]
    judged: tuple[JudgedPart, ...]
    judge: str | None
    obedience: Mapping[str, Mapping[str, int]]
    """Of each attribute that code can check: `replies`, and those that `obeyed`."""
    effects: Mapping[str, Mapping[str, Any]]
    """Control effects by category (generators/quality/effects.py); empty if not measured."""


def read_quality(inputs: ReportInputs) -> QualityData | None:
    """Read the quality of the run's rows; None where there are none.

    Raises:
        DamagedError: a file of an artifact is there but cannot be read.
        DataError: one of the data tables is no such table.
    """
    steps = {step.step: step for step in inputs.steps}
    conversations = _table(steps, CONVERSATIONS_FILE, ("quality", "complete", "conversations"))
    if conversations is None:
        return None
    # the questions before any was dropped: what was found is told, whatever was done about it
    questions = _table(steps, QUESTIONS_FILE, ("questions",))
    path = artifact_file(steps.get("quality"), QUALITY_FILE)
    found = json_object(path.read_text(), path) if path else {}
    rows = read_conversations(conversations)
    numbers = describe(
        rows,
        read_questions(questions) if questions else [],
        rules=RulesConfig(most_compared=0 if found else _MOST_COMPARED),
    )
    checks = found or numbers["checks"]
    section = inputs.experiment.quality
    measured = found.get("answerability") or {}
    guessed = {"all": measured["all"], **measured["by_type"]} if measured else {}
    return QualityData(
        checks=tuple(
            Check(
                flag.replace("_", " "),
                n["rows"],
                n["share"],
                checks["examples"][flag],
                section is not None and flag in section.drop,
            )
            for flag, n in checks["flags"].items()
        ),
        compared=checks["compared"],
        controls=numbers["controls"],
        split_twice=sum(map(len, numbers["leaks"].values())),
        shared_questions=numbers["shared"]["question"],
        shared_answers=numbers["shared"]["answer"],
        guessed=tuple(
            Guessed(
                name=name,
                own=Estimate.model_validate(value["own"]),
                other=Estimate.model_validate(value["other"]),
                above=Estimate.model_validate(value["above"]),
                answerable=Estimate.model_validate(value["answerable"]),
            )
            for name, value in guessed.items()
        ),
        judged=tuple(
            _judged(name, part)
            for name, part in (found.get("faithfulness") or {}).items()
            if part is not None
        ),
        judge=section.endpoint.model if section is not None else None,
        obedience=numbers["obedience"],
        effects=found.get("control_effect") or {},
    )


def _judged(name: str, part: Mapping[str, Any]) -> JudgedPart:
    own, swapped = part["own"], part["swapped"]
    agreement = own["agreement"] or {}
    return JudgedPart(
        name=name,
        n=own["n"],
        shares=tuple(
            (verdict, own["shares"][verdict], swapped["shares"].get(verdict))
            for verdict in own["verdicts"]
            if own["shares"]
        ),
        raw=agreement.get("raw"),
        kappa=agreement.get("kappa"),
        unread=own["unread"],
    )


def _table(steps: Mapping[str, ReportStep], name: str, order: tuple[str, ...]) -> Path | None:
    return next((path for step in order if (path := artifact_file(steps.get(step), name))), None)
