"""The body of a chat completion: the same request is the same bytes in every mode."""

from __future__ import annotations

import json
from functools import lru_cache

from generators.llm.endpoint import OPENAI_URL, ResolvedEndpoint
from generators.llm.request import Frame, Request
from generators.llm.structured import response_format

CHAT_PATH = "/chat/completions"

# one encoder for all: making one takes longer than a small text
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def chat_body(request: Request, endpoint: ResolvedEndpoint) -> bytes:
    """What is sent to `endpoint` for `request`: JSON in UTF-8."""
    # OpenAI has renamed the field; the servers of others know the old name
    limit = "max_completion_tokens" if endpoint.base_url == OPENAI_URL else "max_tokens"
    messages = ",".join(
        f'{{"role":{_json(role)},"content":{_json(content)}}}' for role, content in request.messages
    )
    shared = _shared(endpoint.model, limit, request.frame)
    return f'{shared},"seed":{request.seed},"messages":[{messages}]}}'.encode()


@lru_cache(maxsize=1024)
def _shared(model: str, limit: str, frame: Frame) -> str:
    """The beginning of a body, which requests of one prompt have in common."""
    wanted = response_format(frame.form, frame.name, json.loads(frame.schema))
    sampling = frame.sampling.model_dump(exclude_none=True, exclude={"seed"})
    return _json({"model": model, limit: frame.max_tokens, **wanted, **sampling})[:-1]
