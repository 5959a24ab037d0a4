"""What a check of a data set found: steps write it as JSON, pages, cards and terminals read it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from core.documents.document import Document
from core.records.estimate import Estimate
from generators.quality.agreement import Agreement

QUALITY_FILE = "quality.json"


class FlagCount(Document):
    """Rows with a flag, conversations and questions together."""

    rows: int
    share: float


class FlagCounts(Document):
    """The flags of a data set."""

    flags: dict[str, FlagCount]
    examples: dict[str, str]
    """The words of one fault of each flag."""
    compared: int
    """Controls that were compared for near-duplicates."""

    def share(self, flag: str) -> float:
        """Return the share of rows with a flag."""
        return self.flags[flag].share if flag in self.flags else 0.0


class Answerable(Document):
    """How far questions alone lead to their answers: means over controls of token F1."""

    own: Estimate
    """With the gold answer."""
    other: Estimate
    """With the gold answer about another control."""
    above: Estimate
    """own − other: what the questions give away."""
    answerable: Estimate
    """Share of questions whose F1 with gold is high enough to be answerable."""


class Answerability(Document):
    """Answerability of all sampled questions, and by their kind and type."""

    all: Answerable
    by_type: dict[str, Answerable]
    unread: int
    """Questions without an answer, which count as 0."""

    @property
    def groups(self) -> dict[str, Answerable]:
        """All questions first, then each kind and type by name."""
        return {"all": self.all, **self.by_type}


class Verdicts(Document):
    """What a judge said of a sample by one rubric."""

    rubric: str
    digest: str
    """sha256 of the rubric's file."""
    verdicts: tuple[str, ...]
    """The verdicts allowed, best first."""
    n: int
    unread: int
    """Items without a readable verdict in the first pass."""
    shares: dict[str, float]
    """Share of each verdict among the first pass's readable ones; empty without any."""
    agreement: Agreement | None
    """Of the first two passes; None without an item."""


class Faithful(Document):
    """Verdicts on answers or completions under their own controls, and under others."""

    own: Verdicts
    swapped: Verdicts

    @property
    def shares(self) -> list[tuple[str, float, float | None]]:
        """Each verdict with its share under the own control and under another one."""
        own, swapped = self.own.shares, self.swapped.shares
        return [(name, own[name], swapped.get(name)) for name in self.own.verdicts if own]


class ControlEffects(Document):
    """How much likelier completions are under their own control than under another, in nats."""

    rows: int
    controls: int
    mean: float
    median: float
    below_zero: float
    """Share of completions that are no likelier under their own control."""


class Obedience(Document):
    """Replies under an instruction that code can check, and those that obey it."""

    replies: int
    obeyed: int


class QualityFindings(FlagCounts):
    """All that the step `quality` found."""

    answerability: Answerability | None = None
    """Null where no LLM was asked."""
    faithfulness: dict[str, Faithful | None] | None = None
    """Of `answers` and `completions`, null where there are none; null where no LLM was asked."""
    control_effect: dict[str, ControlEffects] | None = None
    """Of `all` and each `kind/category`; null where it was not measured."""
    obedience: dict[str, Obedience] = Field(default_factory=dict)
    """By the attribute that a control sets."""

    @property
    def judged(self) -> Mapping[str, Faithful]:
        """What was judged to be faithful or not, by name."""
        found = self.faithfulness or {}
        return {name: part for name, part in found.items() if part is not None}
