"""Write and read a batch's lines: JSONL of requests, replies and errors, joined by `custom_id`.

Lines come out in any order, and in two files; nothing here goes by position.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from core.documents.strict_json import json_line, load_json
from generators.llm.endpoint.resolve import CHAT_PATH


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One line of an output or error file: the end of one request of a batch.

    Attributes:
        key: the request's key.
        status: HTTP status of the reply; None where the request was never carried out.
        body: the HTTP body; of a line without one, its error in the same form.
        request_id: the request's number at the endpoint; may be empty.
    """

    key: str
    status: int | None
    body: str
    request_id: str


def request_line(key: str, body: Mapping[str, Any]) -> bytes:
    """Write the line that asks for `body`, with its line feed."""
    line = {"custom_id": key, "method": "POST", "url": f"/v1{CHAT_PATH}", "body": dict(body)}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def split_into_files(
    lines: Iterable[tuple[str, bytes]], *, most_lines: int, most_bytes: int
) -> Iterator[tuple[list[str], BinaryIO]]:
    """Split lines into files within the limits, each with its keys and open for its turn."""
    waiting = iter(lines)
    held = next(waiting, None)
    while held is not None:
        keys: list[str] = []
        size = 0
        with tempfile.TemporaryFile() as file:
            # the first goes in whatever its length: it will be no shorter in the next file
            while held is not None and (
                not keys or (len(keys) < most_lines and size + len(held[1]) <= most_bytes)
            ):
                keys.append(held[0])
                size += file.write(held[1])
                held = next(waiting, None)
            yield keys, file


def read_line(line: bytes) -> BatchLine | None:
    """Read a line of an output or error file; None if it is none."""
    try:
        made = load_json(line)
        response, error = made.get("response"), made.get("error")
        if response is not None:
            status, answer = int(response["status_code"]), response["body"]
            number = str(response.get("request_id") or "")
        else:
            status, answer, number = None, {"error": error}, ""
        # what is kept is the HTTP body alone, as a live reply's; numbers and texts stay the same
        return BatchLine(str(made["custom_id"]), status, json_line(answer), number)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
