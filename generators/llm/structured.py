"""Schemas on any endpoint: what is sent so that a reply follows its schema, and what is read.

| form | the endpoint | the prompt |
|---|---|---|
| `schema` | enforces the JSON schema | as it is |
| `json` | enforces JSON | states the schema |
| `prompt` | enforces nothing | states the schema |

Which form an endpoint takes is found out with one small request (`PROBE`). Every reply is checked
against its schema, whatever the form; one that breaks it is asked for once more, with its fault.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from generators.llm.config import SamplingConfig
from generators.llm.request import Form, Outcome, Request

FORMS: tuple[Form, ...] = ("schema", "json", "prompt")
"""From the strictest to the one that every endpoint takes: the order in which `auto` tries them."""

PROBE = Request(
    messages=(("user", "Name a colour, in a full sentence."),),
    # nobody would answer like this without having seen the schema
    schema={
        "type": "object",
        "properties": {"probe": {"type": "string", "enum": ["latentqa"]}},
        "required": ["probe"],
        "additionalProperties": False,
    },
    name="probe",
    max_tokens=64,
    sampling=SamplingConfig(temperature=None, top_p=None),
)
PROBE_REPLY = {"probe": "latentqa"}

STATEMENT = "Reply with one JSON object and nothing else. It must follow this JSON schema: "
_LONGEST_SHOWN = 2_000
"""Characters of a bad reply that are shown to the model again."""


def with_schema_prompt(request: Request, form: Form) -> Request:
    """`request` as it is sent in `form`: with the schema in its first message if need be."""
    if form == "schema":
        return request
    (role, content), *rest = request.messages
    # the first message is what many requests share, so that a server can keep it in its cache
    stated = f"{content}\n\n{STATEMENT}{_compact(request.schema)}"
    return dataclasses.replace(request, messages=((role, stated), *rest), form=form)


def response_format(form: Form, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The part of a request's body that asks the endpoint for its form; empty for `prompt`."""
    if form == "schema":
        named = {"name": name, "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    if form == "json":
        return {"response_format": {"type": "json_object"}}
    return {}


def correction_request(request: Request, content: str, fault: str) -> Request:
    """`request` once more, after the reply `content` and what is wrong with it."""
    complaint = (
        f"That reply cannot be used: {fault}. Write it again, whole, as one JSON object that "
        f"follows this JSON schema, and nothing else: {_compact(request.schema)}"
    )
    shown = ("assistant", content[:_LONGEST_SHOWN])
    messages = (*request.messages, shown, ("user", complaint))
    return dataclasses.replace(request, messages=messages)


def extract_json(outcome: Outcome, form: Form) -> Outcome:
    """`outcome` with its JSON object alone, where an endpoint that enforces none wrote around it.

    Thoughts before it, words around it and a fence of backticks are what models add.
    """
    if form == "schema" or outcome.status != "answer":
        return outcome
    said = outcome.content.rpartition("</think>")[2]
    inner = said[said.find("{") : said.rfind("}") + 1]
    try:
        json.loads(inner)
    except ValueError:
        return outcome
    return dataclasses.replace(outcome, content=inner)


def _compact(schema: dict[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
