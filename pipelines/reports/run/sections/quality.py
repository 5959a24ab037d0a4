"""The quality of a run's rows: rules over them, and what the step `quality` measured."""

from __future__ import annotations

from dataclasses import dataclass

from core.records.table_files import (
    CONVERSATIONS_FILE,
    QUESTIONS_FILE,
    read_conversations,
    read_questions,
)
from generators.quality.config import RulesConfig
from generators.quality.describe import describe_dataset
from generators.quality.findings import QUALITY_FILE, QualityFindings
from pipelines.reports.run.inputs import ReportInputs, artifact_file

_MOST_COMPARED = 2_000
"""Controls that a page compares for near-duplicates, where no step has compared more."""


@dataclass(frozen=True, slots=True)
class QualityData:
    """All that the section shows."""

    found: QualityFindings
    """What the step `quality` found; where it did not run, what rules find of the rows."""
    dropped: frozenset[str]
    """Flags whose questions were dropped."""
    controls: int
    split_twice: int
    """Groups, labels and controls that stand in two splits."""
    shared_questions: float
    shared_answers: float
    judge: str | None


def read_quality(inputs: ReportInputs) -> QualityData | None:
    """Read the quality of the run's rows; None where there are none.

    Raises:
        DamagedError: a file of an artifact is there but cannot be read.
        DataError: one of the data tables is no such table.
    """
    conversations = inputs.table(CONVERSATIONS_FILE)
    if conversations is None:
        return None
    # the questions before any was dropped: what was found is told, whatever was done about it
    questions = inputs.table(QUESTIONS_FILE, ("questions",))
    path = artifact_file(inputs.step("quality"), QUALITY_FILE)
    numbers = describe_dataset(
        read_conversations(conversations),
        read_questions(questions) if questions else [],
        rules=RulesConfig(most_compared=0 if path else _MOST_COMPARED),
    )
    by_rules = {**numbers["checks"], "obedience": numbers["obedience"]}
    section = inputs.experiment.quality
    return QualityData(
        found=QualityFindings.read(path) if path else QualityFindings.model_validate(by_rules),
        dropped=frozenset(section.drop if section is not None else ()),
        controls=numbers["controls"],
        split_twice=sum(map(len, numbers["leaks"].values())),
        shared_questions=numbers["shared"]["question"],
        shared_answers=numbers["shared"]["answer"],
        judge=section.endpoint.model if section is not None else None,
    )
