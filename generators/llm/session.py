"""How a step asks an LLM: which one, with which prompts, and where replies are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from core.errors import ConfigError
from generators.llm.cached_client import LLMClient
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.log.request_log import RequestLog
from generators.llm.prompt_files import PromptFiles

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMSession:
    """An LLM as one step uses it."""

    log: Path
    """File of the request log; replies in it are not asked for again."""
    endpoint: ResolvedEndpoint | None = None
    """The LLM; None where code draws or measures everything."""
    texts: PromptFiles = field(default_factory=PromptFiles)
    """Prompts, seeds and rubrics."""
    concurrency: int = 8
    """Most requests under way at once."""
    say: Callable[[str], None] = lambda line: None
    """Receives a line where the endpoint takes schemas otherwise than by enforcing them."""

    def require_endpoint(self, field: str, needed_for: Iterable[str]) -> ResolvedEndpoint:
        """Return the endpoint.

        Args:
            field: where the user sets it.
            needed_for: what an LLM has to do.

        Raises:
            ConfigError: there is none.
        """
        if self.endpoint is None:
            raise ConfigError(f"{field}: got none; {', '.join(needed_for)} need an LLM.")
        return self.endpoint

    def run(
        self, endpoint: ResolvedEndpoint, work: Callable[[LLMClient], Awaitable[T]]
    ) -> tuple[T, LLMClient]:
        """Run `work` with a client of the endpoint; return its result and the closed client.

        It also runs where the caller already runs an event loop, such as in a notebook.

        Raises:
            EndpointError: the endpoint cannot be used.
            BudgetError: the money allowed is spent.
        """

        async def whole() -> tuple[T, LLMClient]:
            with RequestLog(self.log) as log:
                client = LLMClient(endpoint, log, self.concurrency, self.say)
                try:
                    return await work(client), client
                finally:
                    await client.close()

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(whole())
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, whole()).result()
