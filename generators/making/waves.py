"""Send requests in waves, in a fixed order, until enough replies are good.

A quota wants a number of rows and has an ordered supply of things to ask. Each wave asks what is
still missing; all its replies are judged in the order in which they were asked, not in which they
came. So what is kept depends on the replies alone, and a larger quota begins with the requests and
rows of a smaller one.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.progress import Progress
from core.records.tables import Dropped
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply_json import Rejection, parse_reply
from generators.llm.chat.request import Request
from generators.llm.prompt_files import PromptTemplate
from generators.llm.request_tasks import complete_with_pool
from generators.making.config import ConversationsConfig, FilterConfig, QuestionsConfig
from generators.rules.refusals import find_refusal
from generators.rules.text import find_copied_words, find_repetition

_EVERY_S = 0.1
"""Least seconds between two words of progress."""


@dataclass(frozen=True, kw_only=True)
class PlannedRequest:
    """One thing to ask.

    Attributes:
        where: what it is for, in words, as `dropped` shows it.
        prompt: the template.
        values: what fills it.
        sample: which of several replies to the same values.
        accept: takes the reply; keeps it, or returns why not. A reply that makes several rows may
            keep some of them and return the faults of the others.
        rows: rows that a good reply makes.
    """

    where: str
    prompt: PromptTemplate
    values: Mapping[str, str]
    sample: int
    accept: Callable[[dict[str, Any], str], Sequence[Rejection]]
    rows: int = 1


@dataclass(kw_only=True)
class Quota:
    """So many rows wanted, from these asks.

    Attributes:
        want: rows.
        asks: what can be asked, in order.
        most: requests at most.
    """

    want: int
    asks: Iterator[PlannedRequest]
    most: int
    kept: int = 0
    asked: int = field(default=0, init=False)

    def next_asks(self) -> list[PlannedRequest]:
        """Return the requests of the next wave: enough for what is missing if all are good."""
        wave: list[PlannedRequest] = []
        missing = self.want - self.kept
        while missing > 0 and self.asked < self.most:
            ask = next(self.asks, None)
            if ask is None:
                break
            wave.append(ask)
            self.asked += 1
            missing -= ask.rows
        return wave


def request_limit(want: int, over_ask: float) -> int:
    """Return the most requests for `want` rows; a quota of one still gets three tries."""
    return max(math.ceil(want * over_ask), want + 2 if over_ask > 1 else want)


async def fill_quotas(
    quotas: Sequence[Quota],
    client: LLMClient,
    config: ConversationsConfig | QuestionsConfig,
    progress: Progress,
    note: str,
) -> list[Dropped]:
    """Request and judge replies until every quota is full or at its limit.

    Args:
        quotas: what is wanted.
        client: what is asked.
        config: how replies are sampled, and which are dropped.
        progress: told the requests done.
        note: what they are, in words.

    Returns:
        what was dropped, in the order of asking.

    Raises:
        EndpointError: the endpoint cannot be used.
    """
    dropped: list[Dropped] = []
    done = 0
    told = 0.0
    for wave in itertools.count(1):
        asks = [(quota, ask) for quota in quotas for ask in quota.next_asks()]
        if not asks:
            break
        total = done + len(asks)
        unit = note if wave == 1 else f"{note}, replacements"

        def heard(outcomes: int, total: int = total, unit: str = unit) -> None:
            nonlocal done, told
            done += outcomes
            now = time.monotonic()
            if outcomes and done < total and now - told < _EVERY_S:
                return  # a line of progress costs more than many a request
            told = now
            words = client.status_line()
            progress(done, total, f"{unit} ({words})" if words else unit)

        requests = [
            Request(
                messages=ask.prompt.messages(ask.values),
                schema=ask.prompt.schema,
                name=ask.prompt.name,
                max_tokens=ask.prompt.max_tokens,
                sampling=config.sampling,
                sample=ask.sample,
            )
            for _, ask in asks
        ]
        # one prompt after the other: a server computes what its requests share only once
        order = sorted(range(len(asks)), key=lambda place: asks[place][1].prompt.name)
        came = await complete_with_pool(client, [requests[place] for place in order], heard)
        outcomes = dict(zip(order, came, strict=True))
        for place, (quota, ask) in enumerate(asks):
            outcome = outcomes[place]
            reply = parse_reply(outcome, ask.prompt.schema)
            if isinstance(reply, Rejection):
                faults: Sequence[Rejection] = [reply]
            elif (fault := _text_fault(ask, reply, config.filters)) is not None:
                faults = [fault]
            else:
                faults = ask.accept(reply, outcome.key)
                quota.kept += ask.rows - len(faults)
            dropped += [
                Dropped(
                    reason=fault.reason,
                    where=ask.where,
                    detail=fault.detail,
                    raw=outcome.content,
                )
                for fault in faults
            ]
    return dropped


def _text_fault(
    ask: PlannedRequest, reply: Mapping[str, Any], filters: FilterConfig
) -> Rejection | None:
    """Return the first rule for every text that the reply's text breaks."""
    text = " ".join(value for value in reply.values() if isinstance(value, str))
    asked = " ".join(ask.values.values())
    return (
        find_refusal(text)
        or find_repetition(text, filters.repetition)
        or find_copied_words(text, ask.prompt.few_shot, asked, filters.copied_words)
    )
