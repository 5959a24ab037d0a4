"""One list of requests on its way to its outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from generators.llm.chat.reply import Outcome
from generators.llm.chat.request import Form, Request
from generators.llm.chat.structured import with_schema_prompt


@dataclass(frozen=True, slots=True, eq=False)
class PendingRequest:
    """A request without a final outcome.

    Attributes:
        request: as it is sent.
        key: the request's key.
        first: its reply, where the log has one that breaks its schema and the correction is new.
        asked_key: key of what is to be asked: the request's own, or its correction's.
    """

    request: Request
    key: str
    first: Outcome | None = None
    asked_key: str = ""


class CompletionJob:
    """One list of requests, and what becomes of them.

    Attributes:
        form: in which the requests are sent.
        pending: key → request, of all without an outcome.
        found: key → replies of the log that are not counted yet.
        counted: keys of requests whose replies out of the log were counted.
        report: told how many of the list have their outcome now more.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        form: Form,
        model: str,
        report: Callable[[int], None],
    ) -> None:
        self.form = form
        self.report = report
        self.pending: dict[str, Request] = {}
        self.found: dict[str, list[Outcome]] = {}
        self.counted: set[str] = set()
        self._untold = 0
        self._keys: list[str] = []
        self._outcomes: dict[str, Outcome] = {}
        for request in requests:
            sent = with_schema_prompt(request, form)
            key = sent.key(model)
            self._keys.append(key)
            self.pending.setdefault(key, sent)
        self._times = Counter(self._keys)

    def finish(self, key: str, outcome: Outcome, *, tell: bool = True) -> None:
        """Keep the outcome of a request, which is that of all that are the same."""
        self._outcomes[key] = outcome
        del self.pending[key]
        self._untold += self._times[key]
        if tell:
            self.tell()

    def tell(self) -> None:
        """Report the outcomes since the last time."""
        if self._untold:
            self.report(self._untold)
            self._untold = 0

    def in_order(self) -> list[Outcome]:
        """List the outcomes in the order of the requests, once all have one."""
        return [self._outcomes[key] for key in self._keys]
