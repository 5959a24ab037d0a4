"""Find how an endpoint is held to JSON schemas: from the config, the log, or by trial requests."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from core.documents.canonical import digest
from generators.llm.chat.failures import RequestFailed, TransientError, endpoint_error
from generators.llm.chat.reply import Outcome, read_reply
from generators.llm.chat.reply_json import extract_json
from generators.llm.chat.request import Form, Request
from generators.llm.chat.structured import (
    FORMS,
    PROBE_REPLY,
    PROBE_TOKENS,
    is_probe_reply,
    probe_request,
)
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.sending.sender import RequestSender


class _FormWords(NamedTuple):
    """Words for a form that a trial request finds out."""

    wanted: str
    ignored: str
    used: str


_WORDS: Mapping[Form, _FormWords] = {
    "schema": _FormWords("with a JSON schema", "ignores JSON schemas", "JSON schemas"),
    "json": _FormWords(
        "in JSON mode", "does not follow JSON mode", "JSON mode, with the schema in the prompt"
    ),
    "prompt": _FormWords(
        "with a schema in its prompt",
        "does not follow a schema in its prompt",
        "the prompt alone, with the schema in it",
    ),
}
_OF_FORMS = re.compile(r"\(.*(?:response_format|schema|json)", re.IGNORECASE)
"""A refusal that is about the form of replies."""


class FormFinder:
    """Finds the form of structured output that the endpoint of `sender` takes.

    Attributes:
        settled: the form; None before it was found by trial requests.
    """

    def __init__(self, sender: RequestSender) -> None:
        self.settled: Form | None = None
        self._sender = sender
        self._endpoint = sender.endpoint
        self._log = sender.log
        self._usage = sender.budget.usage

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
        """Return the form; send trial requests if it is not settled.

        They find failures too, before any work. One that succeeded is in the log, and is not paid
        for again by later runs.

        Args:
            first: the form that is tried first; others follow where the config says `auto`.
            like: a real request: trial requests sample as it does.

        Raises:
            EndpointError: unreachable, wrong key, model missing, no chat completions, or a server
                that ignores schemas; one line says which, where, and what to do.
        """
        if self.settled is None:
            self._count_earlier_trials(like.sampling)
            async with self._sender.budget.room(like):
                self.settled = await self._try_forms(first, like.sampling)
            self._sender.remember(self.settled)
            if self._endpoint.structured == "auto" and self.settled != FORMS[0]:
                self._sender.say(
                    f"generate.endpoint: {self._endpoint.model} does not enforce JSON schemas; "
                    f"used is {_WORDS[self.settled].used}."
                )
        return self.settled

    async def _try_forms(self, first: Form, sampling: SamplingConfig) -> Form:
        fall_back = self._endpoint.structured == "auto"
        misfit = ""
        for form in [first, *(one for one in FORMS if fall_back and one != first)]:
            said = await self._find_misfit(probe_request(sampling, form))
            if said is None:
                return form
            misfit = said
        do = "Use a model that can write JSON."
        if "within its thought" in misfit:
            do = (
                "Give thought room with generate.endpoint.thinking_tokens, such as 2000, or have "
                "the model think less with reasoning_effort or extra_body."
            )
        elif misfit.startswith("refused") and not _OF_FORMS.search(misfit):
            do = "Change the setting that it names, in generate.endpoint or in sampling."
        elif not fall_back:
            do = (
                "Use a server that enforces response_format (llama.cpp, vLLM, a hosted API), or "
                "set generate.endpoint.structured: auto, which makes do without."
            )
        raise endpoint_error(self._endpoint, misfit, do)

    async def _find_misfit(self, request: Request) -> str | None:
        """Say how the endpoint does not follow the form of `request`; None if it does."""
        words, key = _WORDS[request.form], self._key(request)
        if (stored := self._log.get(key)) is not None:
            most = request.max_usage(self._endpoint.thinking_tokens)
            if (known := read_reply(key, stored.raw, most=most, cached=True)) is not None:
                self._usage.add_cost(dataclasses.replace(known, paid=stored.cost))
                return None
        try:
            reply = await self._sender.send_trial(request, key)
        except RequestFailed as error:
            return f"refused a request {words.wanted} ({error})"
        except TransientError as error:
            do = "Check generate.endpoint.base_url (it usually ends with /v1) and the server."
            if error.kind == "silent":
                do += " If it still loads its model, raise generate.endpoint.probe_timeout_s."
            raise endpoint_error(
                self._endpoint,
                f"gave no usable reply to a trial request ({error})",
                do,
                transient=True,
            ) from error
        self._usage.add_cost(reply.outcome)
        in_thought = "thought" in reply.outcome.detail
        content = extract_json(reply.outcome).content.strip()
        if reply.outcome.status == "cut_off" or (reply.outcome.status == "empty" and in_thought):
            where = "within its thought" if in_thought else "unfinished"
            room = PROBE_TOKENS + self._endpoint.thinking_tokens
            misfit = f"cut its reply to a trial request {where}, at {room:,} tokens"
        elif is_probe_reply(content):
            self._log.put(self._endpoint.identity, request.name, reply.raw, reply.attempt)
            return None
        else:
            misfit = f"{words.ignored}: expected {json.dumps(PROBE_REPLY)}, got {content[:60]!r}"
        self._log.note(dataclasses.replace(reply.attempt, detail=misfit))
        return misfit

    def _count_earlier_trials(self, sampling: SamplingConfig) -> None:
        """Count what trial requests without a usable reply have cost in earlier runs."""
        lost = self._log.losses()
        for key in {self._key(probe_request(sampling, form)) for form in FORMS}:
            if key in lost:
                self._usage.add_cost(Outcome.lost(key, *lost[key]))

    def _key(self, request: Request) -> str:
        """Return the key of a trial request, another for each server of a model."""
        return digest([request.key(self._endpoint.identity), self._endpoint.address])
