"""Requests as calls of a task pool: each call asks some, and leaves the replies in the request log.

One process sends some 600 requests a second. Where an endpoint takes more, the requests of a wave
are divided among calls; the caller then finds the replies in the log, and itself sends what a
failed or killed call left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from core.errors import LatentQAError
from core.processes.task_pool import split
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.chat.request import Request
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.endpoint.resolve import ResolvedEndpoint, open_endpoint
from generators.llm.session import LLMSession

LEAST_REQUESTS = 200
"""Requests of a call at least: it starts a process and tries the endpoint."""
_MOST_REQUESTS = 2000
_REQUESTS = TypeAdapter(list[Request])
"""Requests as plain values, and back."""
_LEAST_LIMIT = 1e-9
"""A limit is above zero; by this one nothing is asked."""


async def complete_with_pool(
    client: LLMClient, requests: Sequence[Request], report: Callable[[int], None]
) -> list[Outcome]:
    """Complete requests as `LLMClient.complete_all`, with the help of the endpoint's task pool.

    Args:
        client: knows the endpoint, and counts what is spent.
        requests: what to ask.
        report: told how many outcomes there are now more.

    Raises:
        EndpointError, BudgetError: as `LLMClient.complete_all`.
    """
    pieces = _cut(requests, client.endpoint)
    if len(pieces) == 1:
        return await client.complete_all(requests, report)
    outcomes: dict[int, list[Outcome]] = {}
    labels = [f"{piece[0].name}, {len(piece)} requests" for piece in pieces]
    came = client.endpoint.pool.run(ask_requests, _calls(client, pieces), labels)
    while (call := await asyncio.to_thread(next, came, None)) is not None:
        if call.error is None:
            client.usage.merge(call.value["spent"])
            client.asked.update(call.value["asked"])
        # its replies are in the log now; what it has left is asked here
        outcomes[call.number] = await client.complete_all(pieces[call.number], report)
    return [outcome for number in range(len(pieces)) for outcome in outcomes[number]]


def _cut(requests: Sequence[Request], endpoint: ResolvedEndpoint) -> list[Sequence[Request]]:
    """Cut a wave into pieces, one a call; a single one is for the caller to ask."""
    apart = endpoint.config is not None and endpoint.pool.workers > 1 and endpoint.mode == "live"
    if not apart or len(requests) < 2 * LEAST_REQUESTS:
        return [requests]
    size = max(LEAST_REQUESTS, len(split(requests, endpoint.pool, most=_MOST_REQUESTS)[0]))
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def _calls(client: LLMClient, pieces: Sequence[Sequence[Request]]) -> list[dict[str, Any]]:
    """Return the arguments of `ask_requests` for each piece, each with its share of the limits."""
    config = client.endpoint.config
    assert config is not None
    at_once = min(client.endpoint.pool.workers, len(pieces))
    limits = {
        "budget_usd": _share(client.budget_left, len(pieces)),
        "requests_per_minute": _share(config.requests_per_minute, at_once),
        "tokens_per_minute": _share(config.tokens_per_minute, at_once),
    }
    return [
        {
            "endpoint": {**config.model_dump(mode="json"), **limits},
            "log": str(client.log_path.resolve()),
            "concurrency": max(1, client.concurrency // at_once),
            "requests": _REQUESTS.dump_python(list(piece), mode="json"),
        }
        for piece in pieces
    ]


def ask_requests(
    *,
    endpoint: Mapping[str, Any],
    log: str,
    concurrency: int,
    requests: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Ask requests, and leave their replies in the log.

    An error of the endpoint or its budget ends the call early: the caller meets it too, since it
    asks what is left.

    Args:
        endpoint: fields of the `EndpointConfig`.
        log: path of the request log.
        concurrency: most requests at once.
        requests: their fields.

    Returns:
        `spent`: numbers of `Usage.spent`; `asked`: keys of requests whose replies are new.
    """

    async def work(client: LLMClient) -> None:
        with contextlib.suppress(LatentQAError):
            await client.complete_all(_REQUESTS.validate_python(requests))

    with open_endpoint(EndpointConfig.model_validate(endpoint)) as at:
        _, client = LLMSession(log=Path(log), concurrency=concurrency).run(at, work)
    return {"spent": client.usage.spent(), "asked": sorted(client.asked)}


def _share(limit: float | None, parts: int) -> float | None:
    return None if limit is None else max(limit / parts, _LEAST_LIMIT)
