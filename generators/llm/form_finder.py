"""Find how an endpoint is held to JSON schemas: from the config, the log, or by trial requests."""

from __future__ import annotations

from collections.abc import Callable

from generators.llm.chat.reply import Outcome
from generators.llm.chat.request import Form, Request
from generators.llm.chat.structured import FORMS, probe_request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.log.request_log import RequestLog
from generators.llm.sending.budget import Budget, Usage
from generators.llm.sending.sender import RequestSender

_FALLBACKS = {
    "schema": "JSON schemas",
    "json": "JSON mode, with the schema in the prompt",
    "prompt": "the prompt alone, with the schema in it",
    "tokens": "none",
}


class FormFinder:
    """Finds the form of structured output that one endpoint takes.

    Attributes:
        settled: the form; None before it was found by trial requests.

    Args:
        endpoint: the LLM.
        log: where forms that were found earlier are kept.
        sender: sends the trial requests.
        budget: must have room for them.
        usage: counts what they cost.
        say: told a line where the endpoint does not enforce schemas.
    """

    def __init__(
        self,
        endpoint: ResolvedEndpoint,
        log: RequestLog,
        sender: RequestSender,
        *,
        budget: Budget,
        usage: Usage,
        say: Callable[[str], None],
    ) -> None:
        self.settled: Form | None = None
        self._endpoint = endpoint
        self._log = log
        self._sender = sender
        self._budget = budget
        self._usage = usage
        self._say = say

    def look_up(self) -> Form | None:
        """Return the form, as far as it is known without a request."""
        if self.settled is not None:
            return self.settled
        wanted = self._endpoint.structured
        if wanted != "auto":
            return wanted
        known = {one.form for one in self._log.endpoints(self._endpoint.identity)[:1]}
        return next((form for form in FORMS if form in known), None)

    async def find(self, first: Form, like: Request) -> Form:
        """Return the form; send trial requests, sampled as `like`, if it is not settled."""
        if self.settled is None:
            auto = self._endpoint.structured == "auto"
            self._count_earlier_trials(like.sampling)
            async with self._budget.room(like):
                self.settled = await self._sender.find_form(
                    first, like.sampling, fall_back=auto, count=self._usage.add_cost
                )
            if auto and self.settled != FORMS[0]:
                self._say(
                    f"generate.endpoint: {self._endpoint.model} does not enforce JSON schemas; "
                    f"used is {_FALLBACKS[self.settled]}."
                )
        return self.settled

    def _count_earlier_trials(self, sampling: SamplingConfig) -> None:
        """Count what trial requests without a usable reply have cost in earlier runs."""
        lost = self._log.lost_tokens()
        for key in {self._sender.probe_key(probe_request(sampling, form)) for form in FORMS}:
            if key in lost:
                self._usage.add_cost(Outcome.lost(key, lost[key]))
