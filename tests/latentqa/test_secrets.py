"""A whole run whose endpoint repeats every secret that it was sent: none stands anywhere after."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from command_line import Called
from http_endpoint import ScriptedEndpoint, ScriptedResponse

from generators.llm.testing import chat_completion, is_probe, plausible_reply

KEY, HEADER, QUERY, WORD = "sk-proj-4fQ9xK27Lm", "gate-4fQ9", "query+4fQ9 7", "pa/ss+4fQ9"
USER = f"me:{quote(WORD, safe='')}"
ALWAYS = (HEADER, QUERY, quote(QUERY), quote_plus(QUERY))
IN_BASE64 = tuple(base64.b64encode(f"{'x' * shift}{KEY}y".encode()).decode() for shift in range(3))
"""The key within other texts, as gateways repeat headers."""
OF_USER = (WORD, quote(WORD, safe=""), base64.b64encode(f"me:{WORD}".encode()).decode())


class Repeating(ScriptedEndpoint):
    """Repeats headers and query: in refusals, in headers, and in every third reply."""

    secrets: tuple[str, ...] = ()

    def respond(
        self, method: str, path: str, headers: Mapping[str, str], data: bytes
    ) -> ScriptedResponse | None:
        told = f"{headers} with {', '.join((*self.secrets, *IN_BASE64))}"
        body = json.loads(data)
        self.requests.append(body)
        number, repeated = (
            len(self.requests),
            {"x-request-id": HEADER, "x-ratelimit-key": self.secrets[0]},
        )
        if "top_p" in body:
            refusal = {"error": {"message": f"top_p is not supported ({told})"}}
            return ScriptedResponse(400, refusal, repeated)
        if number % 4 == 3:
            return ScriptedResponse(500, {"error": {"message": told}}, repeated)
        made = chat_completion(body, plausible_reply(body))
        if number % 3 == 0 and not is_probe(body):
            made["system_fingerprint"] = told
        return ScriptedResponse(200, made, repeated)


@pytest.mark.parametrize("with_key", [True, False])
def test_no_secret_stands_anywhere_after_a_run(
    with_key: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("MY_GATEWAY", HEADER)
    settings: dict[str, Any] = {"model": "m", "extra_headers": {"x-gateway": "MY_GATEWAY"}}
    if with_key:
        settings["api_key_env"] = "MY_KEY"
    experiment = {
        "experiment": "own",
        "generate": {
            "endpoint": settings,
            "conversations": {"kinds": {"goal": {"controls": 3}}},
            "questions": {"per_control": 2},
        },
    }
    Path("own.yaml").write_text(json.dumps(experiment))
    with Repeating() as endpoint:
        endpoint.secrets = secrets = ((KEY,) if with_key else OF_USER) + ALWAYS
        at = f"{endpoint.base_url}?key={quote_plus(QUERY)}"
        at = at if with_key else at.replace("//", f"//{USER}@")
        words = ("own.yaml", "--root", "r", "--set", f"generate.endpoint.base_url={at}")
        done = Called(capsys, "run", *words, "--until", "questions")
        assert done.code == 0, done.err
        again = Called(capsys, "plan", *words)
    told = (done.out, done.err, again.out, again.err)
    assert len(endpoint.requests) > 6
    found = [path.read_bytes() for path in Path("r").rglob("*") if path.is_file()]
    with sqlite3.connect("r/requests.sqlite") as db:
        found += [zlib.decompress(body) for (body,) in db.execute("SELECT body FROM replies")]
    for data in [*found, *(text.encode() for text in told)]:
        assert not [secret for secret in secrets if secret.encode() in data]
        assert not with_key or not [text for text in IN_BASE64 if text[4:-4].encode() in data]
