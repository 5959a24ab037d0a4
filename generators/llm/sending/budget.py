"""Count what a run has asked and what that cost, and keep it within a budget."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BudgetError
from generators.llm.chat.reply import Outcome
from generators.llm.chat.request import Request
from generators.llm.endpoint.prices import Price, TokenCounts
from generators.llm.endpoint.resolve import ResolvedEndpoint

_SPENT = (
    *("requests", "failed_requests", "estimated_requests"),
    *("prompt_tokens", "completion_tokens", "bought"),
)
"""Fields of a `Usage` that count what was spent now."""


@dataclass(kw_only=True)
class Usage:
    """Requests, tokens and cost of a run so far; tokens only where they were spent now.

    Attributes:
        price: of the model; None where it is not known, and then no cost is.
        batch_share: what a batched reply costs, as a share of the price.
        bought: US dollars spent now; 0 where the price is not known.
        estimated_requests: replies without a count of tokens: the most that they can have cost
            stands in tokens and cost.
        cost_of_cached: US dollars that the replies out of the log cost when they were bought.
    """

    price: Price | None = None
    batch_share: float = 1.0
    bought: float = 0.0
    requests: int = 0
    cached_requests: int = 0
    failed_requests: int = 0
    estimated_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_of_cached: float = 0.0

    @property
    def cost(self) -> float | None:
        """US dollars spent now; None where the price is not known."""
        return None if self.price is None else self.bought

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of a request."""
        if outcome.cached:
            self.cached_requests += 1
        else:
            self.requests += 1
            self.failed_requests += outcome.status == "failed"
        self.add_cost(outcome)

    def add_cost(self, outcome: Outcome) -> None:
        """Count what an outcome cost, and not as one of the requests: a trial request's, say."""
        cost = 0.0
        if self.price is not None:
            share = self.batch_share if outcome.batched else 1.0
            cost = share * self.price.of(outcome.tokens)
        if outcome.cached:
            # of the provider and the price at which it was bought, where that is known
            self.cost_of_cached += cost if outcome.paid is None else outcome.paid
            return
        self.estimated_requests += outcome.estimated
        self.prompt_tokens += outcome.tokens.prompt
        self.completion_tokens += outcome.tokens.completion
        self.bought += cost

    def spent(self) -> dict[str, float]:
        """Return the requests, tokens and cost of this run, by name."""
        return {name: getattr(self, name) for name in _SPENT}

    def to_json(self) -> dict[str, Any]:
        """Return what an artifact's record keeps."""
        return {
            "requests": self.requests,
            "cached_requests": self.cached_requests,
            "failed_requests": self.failed_requests,
            "estimated_requests": self.estimated_requests,
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "cost_usd": self.cost,
        }

    def merge(self, spent: Mapping[str, float]) -> None:
        """Add what another client has spent."""
        for name, number in spent.items():
            setattr(self, name, getattr(self, name) + number)

    def summary(self) -> str:
        """Tokens and cost for a progress line; empty if nothing was spent."""
        tokens = self.prompt_tokens + self.completion_tokens
        if not tokens:
            return ""
        money = f", $ {self.cost:.4f}" if self.cost else ""
        return f"{'at most ' if self.estimated_requests else ''}{tokens:,} tokens{money}"


class Budget:
    """A cap on what the replies of one table may cost.

    Each request takes room for the most that it could cost before it is sent, and gives it back
    when its true cost is counted in `usage`: so what is spent stays within the limit also with many
    requests under way. Replies out of the log count with what they cost when they were bought; a
    run that is started again and again spends no more than one that was not stopped.

    Attributes:
        usage: what has been spent.

    Args:
        endpoint: says the limit, if there is one, and the price.
    """

    def __init__(self, endpoint: ResolvedEndpoint) -> None:
        if endpoint.budget_usd is not None and endpoint.price is None:
            raise ValueError("a budget needs the price of the model")
        self.usage = Usage(price=endpoint.price, batch_share=endpoint.batch.price_share)
        self._limit = endpoint.budget_usd
        self._thinking_tokens = endpoint.thinking_tokens
        self._reserved: list[float] = []
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def room(self, request: Request) -> AsyncIterator[None]:
        """Reserve room for `request`; count its outcome before leaving.

        Raises:
            BudgetError: on entering: the request could cost more than is left, and nothing is
                under way that could leave more.
        """
        if self._limit is None:
            yield
            return
        most = self.most(request)
        async with self._changed:
            while not self.fits(sum(self._reserved) + most):
                if not self._reserved:
                    raise self.exceeded(most)
                await self._changed.wait()
            self._reserved.append(most)
        try:
            yield
        finally:
            async with self._changed:
                self._reserved.remove(most)
                self._changed.notify_all()

    def count_lost(self, tokens: TokenCounts) -> None:
        """Count a request whose response did not come, as the most that it can have cost.

        Raises:
            BudgetError: once more so much does not fit.
        """
        if self.usage.price is None:
            return
        self.usage.add_cost(Outcome(key="", status="failed", tokens=tokens, estimated=True))
        most = self.usage.price.of(tokens)
        if not self.fits(most):
            raise self.exceeded(most)

    def most(self, request: Request) -> float:
        """US dollars that `request` could cost, asked live; 0 where there is no limit."""
        if self._limit is None or self.usage.price is None:
            return 0.0
        return self.usage.price.of(request.max_usage(self._thinking_tokens))

    def fits(self, amount: float) -> bool:
        """Whether `amount` more US dollars are within the limit."""
        return self._limit is None or self._spent + amount <= self._limit

    def exceeded(self, amount: float) -> BudgetError:
        """Make the error that the next request, which could cost `amount`, does not fit."""
        estimate = " (at most, as the endpoint counts no tokens)" * bool(
            self.usage.estimated_requests
        )
        return BudgetError(
            f"generate.endpoint.budget_usd: $ {self._spent:.4f} of $ {self._limit or 0:.4f} is "
            f"spent{estimate}, and the next request could cost $ {amount:.4f}. Finished replies "
            "are kept; raise the budget and run again to go on."
        )

    @property
    def left(self) -> float | None:
        """US dollars that are left; None where there is no limit."""
        return None if self._limit is None else self._limit - self._spent

    @property
    def _spent(self) -> float:
        return self.usage.bought + self.usage.cost_of_cached
