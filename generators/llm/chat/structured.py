"""Structured replies on any endpoint: what is sent so that a reply follows its schema.

| form | the endpoint | the prompt |
|---|---|---|
| `schema` | enforces the JSON schema | as it is |
| `json` | enforces JSON | states the schema |
| `prompt` | enforces nothing | states the schema |

Which form an endpoint takes is found out with one small request (`probe_request`). Every reply is
checked against its schema, whatever the form; one that breaks it is asked for once more, with its
fault.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from core.documents.strict_json import InvalidJSON, parse_json
from generators.llm.chat.reply import Outcome
from generators.llm.chat.reply_json import Rejection, extract_json, parse_reply
from generators.llm.chat.request import Form, Request
from generators.llm.endpoint.config import SamplingConfig

FORMS: tuple[Form, ...] = ("schema", "json", "prompt")
"""From the strictest to the one that every endpoint takes: the order in which `auto` tries them."""

# nobody would answer like this without having seen the schema
PROBE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"probe": {"type": "string", "enum": ["latentqa"]}},
    "required": ["probe"],
    "additionalProperties": False,
}
PROBE_REPLY = {"probe": "latentqa"}
PROBE_TOKENS = 64

STATEMENT = "Reply with one JSON object and nothing else. It must follow this JSON schema: "
_SHOWN_CHARACTERS = 2_000
"""Characters of a bad reply that are shown to the model again."""


def probe_request(sampling: SamplingConfig, form: Form) -> Request:
    """Build the trial request, which samples and has roles as the real requests do."""
    request = Request(
        messages=(("system", "You name things."), ("user", "A colour, in a full sentence.")),
        schema=PROBE_SCHEMA,
        name="probe",
        max_tokens=PROBE_TOKENS,
        sampling=sampling,
    )
    return with_schema_prompt(request, form)


def is_probe_reply(content: str) -> bool:
    """Tell whether a reply to the trial request follows its schema."""
    try:
        return bool(parse_json(content) == PROBE_REPLY)
    except InvalidJSON:
        return False


def with_schema_prompt(request: Request, form: Form) -> Request:
    """Copy `request` as it is sent in `form`: with the schema in its first message if need be."""
    if form in ("schema", "tokens"):
        return request
    (role, content), *rest = request.messages
    # the first message is what many requests share, so that a server can keep it in its cache
    stated = f"{content}\n\n{STATEMENT}{_compact(request.schema)}"
    return dataclasses.replace(request, messages=((role, stated), *rest), form=form)


def response_format(request: Request) -> dict[str, Any]:
    """Build the part of a body that asks the endpoint for its form; empty for the others."""
    if request.form == "schema":
        named = {"name": request.name, "strict": True, "schema": request.schema}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    if request.form == "json":
        return {"response_format": {"type": "json_object"}}
    return {}


def read_content(request: Request, outcome: Outcome) -> Outcome:
    """Cut the JSON out of a reply that is to be JSON, where there are words around it."""
    return outcome if request.form == "tokens" else extract_json(outcome)


def correction_request(request: Request, outcome: Outcome) -> Request | None:
    """Build the request for a reply that breaks its schema: once more, with what is wrong.

    Returns:
        the request; None where the reply follows its schema, has none, or is no answer.
    """
    if request.form == "tokens":
        return None
    found = parse_reply(outcome, request.schema)
    if not isinstance(found, Rejection) or found.reason != "malformed":
        return None
    complaint = (
        f"That reply cannot be used: {found.detail}. Write it again, whole, as one JSON object "
        f"that follows this JSON schema, and nothing else: {_compact(request.schema)}"
    )
    shown = ("assistant", outcome.content[:_SHOWN_CHARACTERS])
    messages = (*request.messages, shown, ("user", complaint))
    return dataclasses.replace(request, messages=messages)


def _compact(schema: dict[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
