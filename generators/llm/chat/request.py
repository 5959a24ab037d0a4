"""One LLM request, its key, and the record of an attempt at it.

The same types serve every way of sending; a request's key is the same in all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from core.documents.canonical import canonical_json, digest
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.endpoint.prices import NO_TOKENS, TokenCounts

Form = Literal["schema", "json", "prompt", "tokens"]
"""How a reply is held to its schema: the endpoint enforces it, enforces JSON alone, or is told.
`tokens` has no schema: token ids are continued, and the reply is what comes."""

_SCHEMA_BYTES_PER_TOKEN = 3
"""Least bytes a token of a JSON schema has on average: it is English words and punctuation."""
_TOKENS_PER_MESSAGE = 8
"""Tokens that a chat template adds to a message."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for one reply: one that follows a JSON schema, or the tokens that come next.

    Attributes:
        messages: (role, content) pairs.
        prompt_ids: token ids that are continued, in place of messages; `form` is then `tokens`.
        schema: JSON schema of the reply; empty for `tokens`.
        name: name of the schema, for the server.
        max_tokens: longest reply, in tokens, thought left out.
        sample: which of several replies to the same messages is meant.
        form: how the reply is held to its schema.
        logprobs: whether the log-probabilities of the reply's tokens are wanted, with which some
            servers tell what the tokens are.
    """

    messages: tuple[tuple[str, str], ...] = ()
    prompt_ids: tuple[int, ...] = ()
    schema: dict[str, Any] = field(default_factory=dict)
    name: str
    max_tokens: int
    sampling: SamplingConfig
    sample: int = 0
    form: Form = "schema"
    logprobs: bool = False

    def max_usage(self, thinking_tokens: int) -> TokenCounts:
        """Bound the tokens that prompt and reply can take, from above.

        No tokenizer makes more tokens of a text than it has bytes of UTF-8; with digits, emoji and
        many scripts some make nearly as many.
        """
        size = sum(len(content.encode()) for _, content in self.messages)
        if self.form == "schema":  # in the others it stands in a message
            size += len(json.dumps(self.schema)) // _SCHEMA_BYTES_PER_TOKEN
        return TokenCounts(
            prompt=size + _TOKENS_PER_MESSAGE * len(self.messages) + len(self.prompt_ids),
            completion=self.max_tokens + thinking_tokens,
        )

    @cached_property
    def seed(self) -> int | None:
        """The seed that is sent, another one for every sample; None sends none."""
        return None if self.sampling.seed is None else _seed(self.sampling.seed, self.sample)

    def key(self, model: str) -> str:
        """Digest all that decides the reply of `model`: never an address or a time-out."""
        settings = _settings_digest(
            model, json.dumps(self.schema), self.name, self.max_tokens, self.sampling, self.form
        )
        more = [True] if self.logprobs else []
        own = canonical_json([settings, self.sample, self.prompt_ids or self.messages, *more])
        return hashlib.sha256(own).hexdigest()


@lru_cache(maxsize=1024)
def _seed(seed: int, sample: int) -> int:
    return int(digest([seed, sample])[:7], 16)


@lru_cache(maxsize=1024)
def _settings_digest(
    model: str, schema: str, name: str, max_tokens: int, sampling: SamplingConfig, form: Form
) -> str:
    """Digest what thousands of requests of one prompt share."""
    return digest(
        {
            "model": model,
            "schema": json.loads(schema),
            "name": name,
            "max_tokens": max_tokens,
            "sampling": sampling.model_dump(),
            "form": form,
        }
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at a request, whatever came of it; what the request log keeps beside replies.

    Attributes:
        key: the request's key.
        status: HTTP status; None where no response came.
        seconds: from sending to the last byte, or to giving up.
        detail: what went wrong, in words and without secrets; empty for a reply.
        headers: response headers about rate limits and the request's number at the endpoint.
        tokens: as the endpoint counted them, or the most that they can have been.
        cost: US dollars; None where the model's price is unknown.
    """

    key: str
    status: int | None
    seconds: float
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    tokens: TokenCounts = NO_TOKENS
    cost: float | None = None
