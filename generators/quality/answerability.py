"""Answerability measures how well a model answers from the question alone.

A question that can be answered without looking shows nothing about reading. The model gets the
question and nothing else; its answer is compared with gold by token F1, and with the gold answer
to a question of the same kind and type about another control. What is above that baseline is what
the question gives away; the rest is the wording that all such answers share.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.documents.canonical import digest
from core.progress import Progress
from core.records.estimate import Estimate
from core.records.tables import Conversation, Question
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.chat.reply_json import Rejection, parse_reply
from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.prompt_files import PromptFiles
from generators.quality.findings import Answerability, Answerable
from generators.rules.words import overlap_f1, words

PROMPT = "answer_alone"
_SAMPLING = SamplingConfig(temperature=0.0, top_p=None)
_DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledQuestion:
    """A question with its answer, once for its control, whatever the views.

    Attributes:
        other_control: another control, of the same kind, that has a question of this type; None
            where there is none.
        other_answer: the answer to that question.
    """

    kind: str
    type: str | None
    control_id: str
    control: str
    question: str
    answer: str
    other_control: str | None = None
    other_answer: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same item in every view."""
        return self.control_id, self.question, self.answer


def sample_items(
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    sample: int | None,
    seed: int,
) -> list[SampledQuestion]:
    """Draw at most `sample` questions: one of each control, then a second one of each, and so on.

    The order depends on seed and item alone, so that a larger sample begins with a smaller one.
    """
    rows = {row.example_id: row for row in conversations}
    distinct: dict[tuple[str, str, str], tuple[Conversation, Question]] = {}
    for question in questions:
        row = rows[question.example_id]
        distinct.setdefault((row.control_id, question.question, question.answer), (row, question))
    drawn = sorted(distinct, key=lambda key: digest([seed, *key]))
    laps: Counter[str] = Counter()
    order: list[tuple[int, int, tuple[str, str, str]]] = []
    for place, key in enumerate(drawn):
        order.append((laps[key[0]], place, key))
        laps[key[0]] += 1
    pairs = [distinct[key] for _, _, key in sorted(order)[:sample]]
    alike: dict[tuple[str, str | None], list[SampledQuestion]] = defaultdict(list)
    items: list[SampledQuestion] = []
    for row, question in pairs:
        item = SampledQuestion(
            kind=row.kind,
            type=question.type,
            control_id=row.control_id,
            control=row.control,
            question=question.question,
            answer=question.answer,
        )
        items.append(item)
        alike[item.kind, item.type].append(item)
    partnered = {
        item.key: _with_other(group, place)
        for group in alike.values()
        for place, item in enumerate(group)
    }
    return [partnered[item.key] for item in items]


async def answer_without_context(
    client: LLMClient, texts: PromptFiles, items: Sequence[SampledQuestion], progress: Progress
) -> list[str | None]:
    """Have the model answer each question alone; None where it gives no answer.

    Raises:
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
    """
    prompt = texts.prompt(PROMPT)
    requests = [
        Request(
            messages=prompt.messages({"question": item.question}),
            schema=prompt.schema,
            name=prompt.name,
            max_tokens=prompt.max_tokens,
            sampling=_SAMPLING,
        )
        for item in items
    ]
    done = 0

    def heard(outcomes: int) -> None:
        nonlocal done
        done += outcomes
        progress(done, len(requests), "answers from the question alone")

    def read(outcome: Outcome) -> str | None:
        reply = parse_reply(outcome, prompt.schema)
        if isinstance(reply, Rejection):
            return None
        answer = reply["answer"]
        return answer if isinstance(answer, str) else json.dumps(answer)

    return [read(outcome) for outcome in await client.complete_all(requests, heard)]


def token_f1(answer: str, gold: str) -> float:
    """Compute token F1: the harmonic mean of the shared words' shares of both texts, 0 to 1."""
    return overlap_f1(words(answer), words(gold))


def answerability(
    items: Sequence[SampledQuestion], guesses: Sequence[str | None], least: float, seed: int
) -> Answerability:
    """Measure how far the questions alone lead to their answers.

    Args:
        items: what was asked.
        guesses: what was answered.
        least: token F1 from which a question counts as answerable.
        seed: of the intervals' bootstrap.
    """
    groups: dict[str, list[int]] = {"all": list(range(len(items)))}
    for place, item in enumerate(items):
        groups.setdefault(f"{item.kind}/{item.type or 'untyped'}", []).append(place)
    own = [token_f1(g or "", item.answer) for item, g in zip(items, guesses, strict=True)]
    other = [
        None if item.other_answer is None else token_f1(g or "", item.other_answer)
        for item, g in zip(items, guesses, strict=True)
    ]

    def mean(places: Sequence[int], value: Callable[[int], float]) -> Estimate:
        by_control: dict[str, list[float]] = defaultdict(list)
        for place in places:
            by_control[items[place].control_id].append(value(place))
        return mean_over_controls(by_control, seed)

    def measured(places: Sequence[int]) -> Answerable:
        paired = [(place, value) for place in places if (value := other[place]) is not None]
        baseline = dict(paired)
        return Answerable(
            own=mean(places, own.__getitem__),
            other=mean(list(baseline), baseline.__getitem__),
            above=mean(list(baseline), lambda place: own[place] - baseline[place]),
            answerable=mean(places, lambda place: float(own[place] >= least)),
        )

    found = {name: measured(places) for name, places in groups.items()}
    return Answerability(
        all=found.pop("all"),
        by_type=dict(sorted(found.items())),
        unread=sum(guess is None for guess in guesses),
    )


def mean_over_controls(values: Mapping[str, Sequence[float]], seed: int) -> Estimate:
    """Average over controls the means of their values, with a 95 % bootstrap interval."""
    means = np.array([np.mean(own) for own in values.values()])
    n = len(means)
    if n < 2:
        return Estimate(estimate=float(means[0]) if n else None, n=n)
    draw = np.random.default_rng(seed)
    drawn = [means[draw.integers(0, n, n)].mean() for _ in range(_DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(estimate=float(means.mean()), low=float(low), high=float(high), n=n)


def _with_other(alike: Sequence[SampledQuestion], place: int) -> SampledQuestion:
    """Pair `alike[place]` with the next question, in drawn order, about another control."""
    item = alike[place]
    behind = (alike[(place + step) % len(alike)] for step in range(1, len(alike)))
    other = next((one for one in behind if one.control_id != item.control_id), None)
    if other is None:
        return item
    return replace(item, other_control=other.control, other_answer=other.answer)
