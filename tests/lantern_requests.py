"""Numbered requests, and the replies to them that name their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.testing import is_probe, plausible_reply


def request(number: int) -> Request:
    return Request(
        messages=(
            ("system", "You write short and plain sentences about the things of a house. " * 3),
            ("user", f"Write about lantern {number}"),
        ),
        schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        name="test",
        max_tokens=32,
        sampling=SamplingConfig(),
    )


def number_of(body: Mapping[str, Any]) -> int:
    """Which of the requests above `body` is, also where it is asked once more."""
    users = [m["content"] for m in body["messages"] if m["content"].startswith("Write about")]
    return int(users[0].split()[3]) if users else 0


def numbered(body: Mapping[str, Any]) -> Any:
    """Name the request in the reply to it."""
    return plausible_reply(body) if is_probe(body) else {"a": str(number_of(body))}
