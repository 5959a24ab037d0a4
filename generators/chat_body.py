"""The body of a chat completion: the same request is the same bytes' worth in every mode."""

from __future__ import annotations

from typing import Any

from generators.endpoint import OPENAI_URL, ResolvedEndpoint
from generators.llm_request import Request
from generators.structured import response_format

CHAT_PATH = "/chat/completions"


def chat_body(request: Request, endpoint: ResolvedEndpoint) -> dict[str, Any]:
    """What is sent to `endpoint` for `request`, as JSON's Python."""
    sampling = request.sampling.model_dump(exclude_none=True) | {"seed": request.seed}
    # OpenAI has renamed the field; the servers of others know the old name
    limit = "max_completion_tokens" if endpoint.base_url == OPENAI_URL else "max_tokens"
    return {
        "model": endpoint.model,
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        limit: request.max_tokens,
        **response_format(request),
        **sampling,
    }
