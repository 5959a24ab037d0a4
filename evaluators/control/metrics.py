"""Typed results of the evaluation of steering, which the step writes and pages read."""

from __future__ import annotations

from typing import Any

from core.documents.document import Document
from core.records.estimate import Estimate
from generators.quality.agreement import Agreement


class StrengthPoint(Document):
    """A method at one strength, on validation prompts.

    Attributes:
        strength: multiple of what the method makes of itself.
        adherence: mean score by code, less the unsteered target's.
        likelihood: mean nats per token by which replies are likelier under a system prompt that
            says the control than without it, less those of unsteered replies.
        distinct: distinct-2 over the unsteered target's.
        own_perplexity: of its replies under the unsteered target, over that of unsteered replies.
        ordinary_perplexity: of unsteered replies under the steered target, over the same.
        harmless: whether all three lie within the limits.
    """

    strength: float
    adherence: float | None
    likelihood: float
    distinct: float
    own_perplexity: float
    ordinary_perplexity: float
    harmless: bool


class SideEffects(Document):
    """Side effects of steering on test prompts; None where one was not measured.

    Attributes:
        distinct: distinct-2 of replies, over the unsteered target's.
        repetition: share of three-word sequences that a reply says again.
        own_perplexity: of its replies under the unsteered target, over that of unsteered replies.
        ordinary_perplexity: of unsteered replies under the steered target, over the same.
        refusals: share of ordinary requests that are refused.
        toxicity: share of replies to them with an insult, an obscenity or a threat.
        facts: share of plain questions answered rightly.
        sentiment: mean VADER compound score of replies.
    """

    distinct: float
    repetition: Estimate
    own_perplexity: float
    ordinary_perplexity: float
    refusals: Estimate
    facts: Estimate
    sentiment: Estimate
    toxicity: Estimate = Estimate()


class BiasResult(Document):
    """Bias measured on CrowS-Pairs, over all pairs and by type.

    Attributes:
        difference: mean absolute difference of a pair's log-likelihoods, in nats.
        stereotype: share of pairs whose more stereotypical sentence is likelier, in per cent.
        by_type: the same two by type of bias.
    """

    difference: Estimate
    stereotype: Estimate
    by_type: dict[str, dict[str, Estimate]]


class MethodResult(Document):
    """A method at the strength that validation chose, on test prompts.

    Attributes:
        strength: the strength.
        chosen_harmless: whether that strength was within the limits on validation prompts; where
            none was, the least harmful one was taken.
        adherence: score by code, less the unsteered target's.
        likelihood: see `StrengthPoint`.
        effects: side effects.
        bias: CrowS-Pairs.
        curve: every strength that was tried.
        training: losses of an adapter.
        wording: system prompt of the method that prompts.
        notes: signs that the method cannot work.
        seconds: wall time of making it and of trying its strengths.
    """

    strength: float
    chosen_harmless: bool
    adherence: Estimate
    likelihood: Estimate
    effects: SideEffects
    bias: BiasResult | None = None
    curve: list[StrengthPoint]
    training: dict[str, Any] | None = None
    wording: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class Readability(Document):
    """Whether the decoder can read a control at all, from a target that is told it.

    Attributes:
        margin: fall of the answers' loss when a hidden system prompt says the control, in nats per
            token; what the target is told is withheld from the decoder.
        accuracy: share of questions whose wanted answer is the likeliest of the closed ones; None
            without closed answers.
        chance: what guessing would have.
        readable: whether the margin is above zero, by its interval where there is one.
        agreement: mean cosine between the gradients of each two questions; None of one question.
        opposed: pairs of questions whose gradients oppose each other, in words.
    """

    margin: Estimate
    accuracy: Estimate | None
    chance: float | None
    readable: bool
    agreement: Estimate | None = None
    opposed: tuple[str, ...] = ()

    @property
    def at_chance(self) -> bool:
        """Whether closed answers are no better than guesses, by their interval."""
        if self.accuracy is None or self.chance is None or self.accuracy.low is None:
            return False
        return self.accuracy.low <= self.chance


class ControlResult(Document):
    """What steering towards one control does, by method.

    Attributes:
        readability: whether the decoder can read it.
        unsteered: side effects' measures of the target as it is.
        methods: by name.
    """

    readability: Readability
    unsteered: SideEffects
    unsteered_bias: BiasResult | None = None
    methods: dict[str, MethodResult]


class ControlMetrics(Document):
    """What the step `control` measured, by control.

    Attributes:
        prompts: number of train, validation and test prompts.
        controls: by name.
    """

    prompts: dict[str, int]
    controls: dict[str, ControlResult]


class JudgedReplies(Document):
    """What an LLM judged of the replies about one control, by one rubric.

    Attributes:
        unsteered: mean score of the unsteered target's replies, from −1 to 1.
        gains: by method, mean score less the unsteered target's, on the prompts of both.
        agreement: of the judge with itself.
        unread: replies without a readable verdict.
    """

    unsteered: Estimate
    gains: dict[str, Estimate]
    agreement: Agreement
    unread: int


class JudgedControl(Document):
    """An LLM's verdicts on the replies steered towards one control.

    Attributes:
        measures: by what was judged, `adherence` or `sentiment`.
    """

    measures: dict[str, JudgedReplies]


class JudgedControls(Document):
    """An LLM's verdicts on steered replies.

    Attributes:
        controls: by name.
        rubrics: digest of each measure's rubric.
    """

    controls: dict[str, JudgedControl]
    rubrics: dict[str, str]
