"""A reply as JSON of its schema, or the rule that it breaks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from generators.llm.request import Outcome


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rule that a reply breaks.

    Attributes:
        reason: one of `REASONS`.
        detail: what in the reply breaks it.
    """

    reason: str
    detail: str = ""


def parse_reply(outcome: Outcome, schema: Mapping[str, Any]) -> dict[str, Any] | Rejection:
    """The reply as a dict of its schema's properties, or why it is none.

    Strings are stripped of the white space around them.
    """
    if outcome.status != "answer":
        return Rejection(outcome.status, outcome.detail)
    try:
        reply = json.loads(outcome.content)
    except ValueError as error:
        return Rejection("malformed", f"not JSON: {error}")
    if not isinstance(reply, dict):
        return Rejection("malformed", f"expected an object, got {type(reply).__name__}")
    if missing := sorted(set(schema["required"]) - set(reply)):
        return Rejection("malformed", f"property {missing[0]!r} is missing")
    clean: dict[str, Any] = {}
    for name, rule in schema["properties"].items():
        value = reply[name]
        if "enum" in rule and value not in rule["enum"]:
            return Rejection("malformed", f"property {name!r} is none of {rule['enum']}")
        if rule.get("type") == "string":
            if not isinstance(value, str):
                return Rejection("malformed", f"property {name!r} is no text")
            value = " ".join(value.split())
            if not value:
                return Rejection("empty", f"property {name!r} is empty")
        clean[name] = value
    return clean
