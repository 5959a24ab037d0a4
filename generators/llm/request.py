"""One LLM request, and what can become of it.

The same two types serve every way of asking; a request's key is the same in all of them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

from core.canonical import canonical_json, digest
from generators.llm.config import SamplingConfig

Status = Literal["answer", "empty", "cut_off", "refusal", "filtered", "failed"]
Form = Literal["schema", "json", "prompt"]
"""How a reply is held to its schema: the endpoint enforces it, enforces JSON alone, or is told."""

_BYTES_A_TOKEN = 3
"""Least bytes of UTF-8 that tokens have on average, in any language: for upper bounds."""
_TOKENS_A_MESSAGE = 8
"""Tokens that a chat template adds to a message."""


class Frame(NamedTuple):
    """What thousands of requests of one prompt share, in a form that caches can go by.

    Attributes:
        schema: as JSON.
    """

    schema: str
    name: str
    max_tokens: int
    sampling: SamplingConfig
    form: Form


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked.

    Attributes:
        messages: (role, content) pairs.
        schema: JSON schema of the reply.
        name: name of the schema, for the server.
        max_tokens: longest reply, in tokens.
        sample: which of several replies to the same messages is meant.
        form: how the reply is held to its schema.
    """

    messages: tuple[tuple[str, str], ...]
    schema: dict[str, Any]
    name: str
    max_tokens: int
    sampling: SamplingConfig
    sample: int = 0
    form: Form = "schema"

    @property
    def most_tokens(self) -> tuple[int, int]:
        """Tokens that prompt and reply will hardly exceed."""
        size = sum(len(content.encode()) for _, content in self.messages)
        return size // _BYTES_A_TOKEN + _TOKENS_A_MESSAGE * len(self.messages), self.max_tokens

    @cached_property
    def frame(self) -> Frame:
        """All but the messages and the sample."""
        # interned: one text for all requests that share it
        schema = sys.intern(json.dumps(self.schema))
        return _one(Frame(schema, self.name, self.max_tokens, self.sampling, self.form))

    @property
    def seed(self) -> int:
        """The seed that is sent: another one for every sample."""
        return _seed(self.sampling.seed, self.sample)

    def key(self, model: str) -> str:
        """Digest of all that decides the reply of `model`: never an address or a time-out."""
        before, between, after = _around(model, self.frame)
        messages = canonical_json(self.messages)
        # the digest of one canonical JSON, put together from what is its own and what is shared
        whole = b"%b%b%b%d%b" % (before, messages, between, self.sample, after)
        return hashlib.sha256(whole).hexdigest()


@lru_cache(maxsize=1024)
def _one(frame: Frame) -> Frame:
    """The one frame that stands for all that are equal."""
    return frame


@lru_cache(maxsize=1024)
def _seed(seed: int, sample: int) -> int:
    return int(digest([seed, sample])[:7], 16)


@lru_cache(maxsize=1024)
def _around(model: str, frame: Frame) -> tuple[bytes, bytes, bytes]:
    """What stands before the messages, between them and the sample, and after that, in the
    canonical JSON of what decides a reply; its names are in order."""
    # the forms came later: replies of logs from before them keep their keys
    form = {} if frame.form == "schema" else {"form": frame.form}
    before = canonical_json({**form, "max_tokens": frame.max_tokens})
    between = canonical_json({"model": model, "name": frame.name})
    after = canonical_json(
        {"sampling": frame.sampling.model_dump(), "schema": json.loads(frame.schema)}
    )
    return (
        before[:-1] + b',"messages":',
        b"," + between[1:-1] + b',"sample":',
        b"," + after[1:],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at a request, whatever came of it; what the request log keeps beside replies.

    Attributes:
        key: the request's key.
        status: HTTP status; None where no response came.
        detail: what went wrong, in words and without secrets; empty for a reply.
        headers: response headers about rate limits and the request's number at the endpoint.
        seconds: from sending to the last byte, or to giving up.
        prompt_tokens: as the endpoint counted them; 0 where it did not say.
        completion_tokens: likewise.
        cost: US dollars; None where the model's price is unknown.
    """

    key: str
    status: int | None
    seconds: float
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a request.

    Only status `answer` carries content to read. `failed` means that no reply was had within the
    retries: it is asked again by the next run, all else is final.

    Attributes:
        key: the request's key.
        detail: why there is no answer, in words.
        cached: the reply was in the log already.
        batched: the reply came in a batch.
    """

    key: str
    status: Status
    content: str = ""
    detail: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = field(default=False, compare=False)
    batched: bool = field(default=False, compare=False)


def read_reply(
    key: str, raw: str, *, cached: bool = False, batched: bool = False
) -> Outcome | None:
    """Outcome of the raw HTTP body `raw`; None if it is no chat completion at all."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        message = choice["message"]
        content = message.get("content")
        refusal = message.get("refusal")
        finish = choice.get("finish_reason")
        usage = body.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    if not isinstance(content, str | None):
        return None
    status: Status = "answer"
    detail = ""
    if finish == "content_filter":
        status, detail = "filtered", "the endpoint's content filter held the reply back"
    elif refusal:
        status, detail = "refusal", str(refusal)
    elif finish == "length":
        status, detail = "cut_off", "the reply reached max_tokens"
    elif not content or not content.strip():
        status, detail = "empty", "the reply has no text"
    return Outcome(
        key=key,
        status=status,
        content=content or "",
        detail=detail,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        cached=cached,
        batched=batched,
    )
