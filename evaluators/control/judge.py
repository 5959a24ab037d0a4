"""Judgement of a steered target: adherence by two measures, and what else changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from activation_store.target.generation import Sampling
from core.records.estimate import Estimate
from core.records.steering_control import SteeringControl
from decoder.model import Decoder
from decoder.steering.prompts import SteeringPrompt, make_steering_prompt
from decoder.steering.replies import SteeredReply, Steering, score_replies, write_replies
from evaluators.control.config import ControlSection
from evaluators.control.methods import PromptMaker
from evaluators.control.metrics import SideEffects, StrengthPoint
from evaluators.control.text_measures import distinct_n, holds_fact, repetition
from evaluators.stats.estimates import Resampling, mean_estimate
from generators.llm.prompt_files import PromptFiles
from generators.rules.obedience import adherence
from generators.rules.refusals import find_refusal
from generators.rules.tone import sentiment_of
from generators.rules.toxicity import is_toxic

_BATCH = 8
_FACT_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Replies to prompts, with what was measured of each.

    Attributes:
        replies: one a prompt.
        adherence: score by code of each; None where code cannot tell.
        likelihood: of each, nats per token by which it is likelier for a target that is told the
            control than for one that is told nothing.
        surprise: of each, the sum of nats under the unsteered target, and its tokens.
        ordinary: of each, the sum of nats of the unsteered reply under this target, and its tokens.
    """

    replies: list[SteeredReply]
    adherence: np.ndarray | None
    likelihood: np.ndarray
    surprise: np.ndarray
    ordinary: np.ndarray

    @property
    def texts(self) -> list[str]:
        """The replies' texts."""
        return [reply.text for reply in self.replies]

    @property
    def own_perplexity(self) -> float:
        """Perplexity of the replies under the unsteered target."""
        return _perplexity(self.surprise)

    @property
    def ordinary_perplexity(self) -> float:
        """Perplexity of the unsteered replies under this target."""
        return _perplexity(self.ordinary)


def _perplexity(nats_and_tokens: np.ndarray) -> float:
    nats, tokens = nats_and_tokens.sum(0)
    return math.exp(min(nats / max(tokens, 1), 50.0))


class ControlJudge:
    """Judges ways to steer towards one control, on one set of things that users say."""

    def __init__(
        self,
        decoder: Decoder,
        control: SteeringControl,
        said: Sequence[str],
        config: ControlSection,
    ) -> None:
        self._decoder, self._control, self._config = decoder, control, config
        self._said = tuple(said)
        self._sampling = Sampling(max_tokens=config.max_tokens)

    @cached_property
    def unsteered(self) -> Judged:
        """The target as it is."""
        plain = [make_steering_prompt(self._decoder, text) for text in self._said]
        replies = self._write(plain, Steering())
        return self._judged(plain, replies, Steering(), ordinary=replies)

    def judge(self, make: PromptMaker, steering: Steering) -> Judged:
        """Judge the target steered one way.

        Args:
            make: how it is given what a user says.
            steering: how it is steered.
        """
        prompts = [make(text) for text in self._said]
        replies = self._write(prompts, steering)
        return self._judged(prompts, replies, steering, ordinary=self.unsteered.replies)

    def point(self, strength: float, judged: Judged) -> StrengthPoint:
        """Compare the replies at one strength with those of the unsteered target."""
        base, config = self.unsteered, self._config
        ratios = self._ratios(judged)
        perplexity = max(ratios["own_perplexity"], ratios["ordinary_perplexity"])
        gain = None
        if judged.adherence is not None and base.adherence is not None:
            gain = float((judged.adherence - base.adherence).mean())
        return StrengthPoint(
            strength=strength,
            adherence=gain,
            likelihood=float((judged.likelihood - base.likelihood).mean()),
            harmless=perplexity <= config.perplexity_limit
            and abs(ratios["distinct"] - 1) <= config.distinct_limit,
            **ratios,
        )

    def _ratios(self, judged: Judged) -> dict[str, float]:
        """Divide diversity and both perplexities by those of the unsteered target."""
        base = self.unsteered
        return {
            "distinct": distinct_n(judged.texts) / max(distinct_n(base.texts), 1e-9),
            "own_perplexity": judged.own_perplexity / base.own_perplexity,
            "ordinary_perplexity": judged.ordinary_perplexity / base.ordinary_perplexity,
        }

    def paired(self, values: np.ndarray, base: np.ndarray) -> Estimate:
        """Estimate the mean difference to the unsteered target, prompt by prompt."""
        return self.estimate(values - base)

    def estimate(self, values: Sequence[float] | np.ndarray) -> Estimate:
        """Estimate a mean over prompts."""
        return mean_estimate(values, resampling_of(self._config))

    def effects(self, judged: Judged, make: PromptMaker, steering: Steering) -> SideEffects:
        """Measure what else a steered target does otherwise."""
        facts = plain_facts()
        written = self._write(
            [make(question) for question, _ in facts], steering, Sampling(max_tokens=_FACT_TOKENS)
        )
        right = [
            holds_fact(r.text, answers) for r, (_, answers) in zip(written, facts, strict=True)
        ]
        texts = judged.texts
        return SideEffects(
            repetition=self.estimate([repetition(text) for text in texts]),
            refusals=self.estimate([find_refusal(text) is not None for text in texts]),
            toxicity=self.estimate([is_toxic(text) for text in texts]),
            facts=self.estimate(right),
            sentiment=self.estimate([sentiment_of(text) for text in texts]),
            **self._ratios(judged),
        )

    def _write(
        self,
        prompts: Sequence[SteeringPrompt],
        steering: Steering,
        sampling: Sampling | None = None,
    ) -> list[SteeredReply]:
        replies: list[SteeredReply] = []
        for start in range(0, len(prompts), _BATCH):
            part = prompts[start : start + _BATCH]
            replies += write_replies(self._decoder, part, steering, sampling or self._sampling)
        return replies

    def _score(
        self,
        prompts: Sequence[SteeringPrompt],
        replies: Sequence[SteeredReply],
        steering: Steering,
    ) -> np.ndarray:
        """Compute the sum of nats [P] of replies."""
        found: list[float] = []
        for start in range(0, len(prompts), _BATCH):
            part = slice(start, start + _BATCH)
            ids = [reply.ids for reply in replies[part]]
            found += [-s for s in score_replies(self._decoder, prompts[part], ids, steering)]
        return np.array(found)

    def _judged(
        self,
        prompts: Sequence[SteeringPrompt],
        replies: list[SteeredReply],
        steering: Steering,
        *,
        ordinary: list[SteeredReply],
    ) -> Judged:
        decoder, control = self._decoder, self._control
        plain = [make_steering_prompt(decoder, text) for text in self._said]
        told = [
            make_steering_prompt(decoder, text, system=control.system_prompt) for text in self._said
        ]
        lengths = np.array([len(reply.ids) for reply in replies])
        untold = self._score(plain, replies, Steering())
        gain = (untold - self._score(told, replies, Steering())) / lengths
        scores = None
        if control.check is not None:
            scores = np.array([adherence(reply.text, control.check) for reply in replies])
        others = self._score(prompts, ordinary, steering)
        return Judged(
            replies=replies,
            adherence=scores,
            likelihood=gain,
            surprise=np.stack([untold, lengths], 1),
            ordinary=np.stack([others, np.array([len(r.ids) for r in ordinary])], 1),
        )


def resampling_of(config: ControlSection) -> Resampling:
    """Return how prompts, or pairs of sentences, are resampled."""
    return Resampling(samples=config.bootstrap, seed=config.seed)


def plain_facts() -> list[tuple[str, tuple[str, ...]]]:
    """Read the packaged questions with their right answers."""
    return PromptFiles().parsed_seeds(
        "plain_facts",
        lambda _, rows: [(row["question"], tuple(map(str, row["answer"]))) for row in rows],
    )
