"""Requests as calls of a task pool: each call asks some, and leaves the replies in the request log.

One process sends some 600 requests a second. Where an endpoint takes more, the requests of a wave
are cut into pieces; whoever wants the replies then finds them in the log, and asks itself what a
call that failed or was killed has left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import LatentQAError
from core.task_pool import split
from generators.llm.budget import Usage
from generators.llm.endpoint.config import EndpointConfig, SamplingConfig
from generators.llm.endpoint.resolve import ResolvedEndpoint, open_endpoint
from generators.llm.log.request_log import RequestLog
from generators.llm.request import Request

LEAST_REQUESTS = 200
"""Requests of a call at least: it starts a process and tries the endpoint."""
_MOST_REQUESTS = 2000
_LEAST_LIMIT = 1e-9
"""A limit is above zero; by this one nothing is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedPiece:
    """What a call has asked, whether or not it came to its end."""

    number: int
    """Which piece of the wave it was."""
    usage: Usage
    asked: frozenset[str]
    """Keys of requests whose replies are new."""


@dataclass(frozen=True, slots=True)
class RequestTasks:
    """Where the requests of a wave are asked.

    Attributes:
        endpoint: the LLM, its configuration, and the pool that runs the calls.
        log: path of the request log.
        concurrency: most requests at once, of all calls together.
    """

    endpoint: ResolvedEndpoint
    log: Path
    concurrency: int

    def pieces(self, requests: Sequence[Request]) -> list[Sequence[Request]]:
        """Cut a wave into pieces, one a call; a single one is for the caller to ask."""
        endpoint, pool = self.endpoint, self.endpoint.pool
        apart = endpoint.config is not None and pool.workers > 1 and endpoint.mode == "live"
        if not apart or len(requests) < 2 * LEAST_REQUESTS:
            return [requests]
        size = max(LEAST_REQUESTS, len(split(requests, pool, most=_MOST_REQUESTS)[0]))
        return [requests[start : start + size] for start in range(0, len(requests), size)]

    async def ask(
        self, pieces: Sequence[Sequence[Request]], budget_usd: float | None
    ) -> AsyncIterator[AskedPiece]:
        """Ask pieces of a wave, and yield each when its call has ended.

        Args:
            pieces: requests, by call.
            budget_usd: what may be spent on all of them; None for no limit.
        """
        assert self.endpoint.config is not None
        config, pool = self.endpoint.config, self.endpoint.pool
        at_once = min(pool.workers, len(pieces))
        limits = {
            "budget_usd": _share(budget_usd, len(pieces)),
            "requests_per_minute": _share(config.requests_per_minute, at_once),
            "tokens_per_minute": _share(config.tokens_per_minute, at_once),
        }
        calls = [
            {
                "endpoint": {**config.model_dump(mode="json"), **limits},
                "log": str(self.log.resolve()),
                "concurrency": max(1, self.concurrency // at_once),
                "requests": [_to_json(request) for request in piece],
            }
            for piece in pieces
        ]
        labels = [f"{piece[0].name}, {len(piece)} requests" for piece in pieces]
        came = pool.run(ask_requests, calls, labels)
        while (outcome := await asyncio.to_thread(next, came, None)) is not None:
            value = outcome.value or {"usage": {}, "asked": []}
            yield AskedPiece(
                number=outcome.number,
                usage=Usage(**value["usage"]),
                asked=frozenset(value["asked"]),
            )


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
        `usage`: numbers of a `Usage`; `asked`: keys of requests whose replies are new.
    """
    from generators.llm.client import LLMClient, run_async

    async def work() -> dict[str, Any]:
        with (
            open_endpoint(EndpointConfig.model_validate(endpoint)) as at,
            RequestLog(Path(log)) as kept,
        ):
            client = LLMClient(at, kept, concurrency)
            try:
                with contextlib.suppress(LatentQAError):
                    await client.complete_all([_from_json(one) for one in requests])
            finally:
                await client.close()
        return {"usage": client.usage.spent(), "asked": sorted(client.asked)}

    return run_async(work())


def _share(limit: float | None, parts: int) -> float | None:
    return None if limit is None else max(limit / parts, _LEAST_LIMIT)


def _to_json(request: Request) -> dict[str, Any]:
    return {
        "messages": [list(message) for message in request.messages],
        "schema": request.schema,
        "name": request.name,
        "max_tokens": request.max_tokens,
        "sampling": request.sampling.model_dump(mode="json"),
        "sample": request.sample,
    }


def _from_json(value: Mapping[str, Any]) -> Request:
    return Request(
        messages=tuple((role, content) for role, content in value["messages"]),
        schema=value["schema"],
        name=value["name"],
        max_tokens=value["max_tokens"],
        sampling=SamplingConfig.model_validate(value["sampling"]),
        sample=value["sample"],
    )
