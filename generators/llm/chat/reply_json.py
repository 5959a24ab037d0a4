"""Parse a reply as JSON of its schema, or name the rule that it breaks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from core.documents.strict_json import InvalidJSON, fits_utf8, parse_json
from generators.llm.chat.reply import Outcome


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rule that a reply breaks.

    Attributes:
        reason: the rule's name, as docs/generation.md lists them.
        detail: what in the reply breaks it.
    """

    reason: str
    detail: str = ""


def parse_reply(outcome: Outcome, schema: Mapping[str, Any]) -> dict[str, Any] | Rejection:
    """Parse the reply as an object of its schema's properties.

    Properties that the schema does not have are left out, and white space in texts becomes single
    blanks.

    Returns:
        the object, or why there is none.
    """
    if outcome.status != "answer":
        return Rejection(outcome.status, outcome.detail)
    try:
        reply = parse_json(outcome.content)
    except InvalidJSON as error:
        return Rejection("malformed", f"not JSON: {error.detail}")
    if not isinstance(reply, dict):
        return Rejection("malformed", f"expected an object, got {type(reply).__name__}")
    known = {name: reply[name] for name in schema.get("properties", {}) if name in reply}
    fault = best_match(_validator(json.dumps(schema)).iter_errors(known))
    if fault is not None:
        where = f"property {fault.path[0]!r}: " if fault.path else ""
        return Rejection("malformed", f"{where}{fault.message[:300]}")
    if not fits_utf8(json.dumps(known, ensure_ascii=False)):
        return Rejection("malformed", "half a surrogate pair, which no UTF-8 can hold")
    clean: dict[str, Any] = {}
    for name, value in known.items():
        clean[name] = " ".join(value.split()) if isinstance(value, str) else value
        if clean[name] == "":
            return Rejection("empty", f"property {name!r} is empty")
    return clean


def extract_json(outcome: Outcome) -> Outcome:
    """Cut the JSON object out of a reply that has words around it.

    Words before and after it, and a fence of backticks, are what models add where an endpoint does
    not enforce JSON. A reply that is JSON, or has none, stays as it is.
    """
    if outcome.status != "answer" or _is_json(outcome.content):
        return outcome
    said = outcome.content
    inner = said[said.find("{") : said.rfind("}") + 1]
    return dataclasses.replace(outcome, content=inner) if _is_json(inner) else outcome


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except InvalidJSON:
        return False
    return True


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema))
