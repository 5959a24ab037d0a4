"""Files and replies as accidents and attackers change them, each from a seed, and what has to hold.

Whatever comes in, there is a result or one clear line, and the good rows beside it are kept.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import stores
import tiny
from conversation_lines import QUESTIONS
from endpoint_kinds import EndpointOfKind, good
from endpoints import complete, resolved

from activation_store.model_files.files import resolve_model
from activation_store.read.verify import verify
from core.errors import LatentQAError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.text.terminal import terminal_text
from generators.exchange.config import ImportConfig
from generators.exchange.conversation_files import import_own_conversations, import_own_questions
from generators.llm.chat.reply import Outcome
from generators.llm.chat.reply_json import Rejection, parse_reply
from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.testing import is_probe
from latentqa.cli import main
from latentqa.commands.experiments.init import packaged_experiments

YAML_VALUES = (
    "1e400", "-1e400", ".nan", ".inf", "9" * 30, "9" * 5000, "0x10", "010", "1_000", "''", "[]",
    "{}", "~", "yes", "2026-01-01", "&a [*a]", "*nothing", "!x y",
    "!!python/object/apply:os.system [ls]", '"\\ud800"', '"\\x9b2J"', "\u202eabc", "[" * 2000,
    "{a: " * 300, "|", "- -", "a: b: c",
    "%YAML 9", "\t", "[/bold]", "'", '"', "@", "`", "? ", "\x00", "\x85", "\ufeff",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, "", " ", 0, -1, 1e308, True, [], {}, "\ud800", "x" * 5000, "\u202e\x9b", [[]], [None],
    {"type": "text"}, {"role": []}, "null", "{", ["text"], {"type": 3}, 10**400, float("nan"),
    float("inf"), "[" * 5000, '[{"role": "user"}]', '{"a": 1, "a": 2}', 2**63, -(2**31) - 1, "\0",
    {"": ""}, "1e999", "user", "control", 0.5,
)  # fmt: skip
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
CALL = {"id": "1", "type": "function", "function": {"name": "sh", "arguments": '{"cmd": "ls"}'}}
ROW = {
    "messages": [
        {"role": "system", "content": "Be brief.", "segment": "control"},
        {"role": "user", "content": "Clean up.", "segment": "stimulus"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "segment": "stimulus"},
        {"role": "tool", "tool_call_id": "1", "content": "ok", "segment": "stimulus"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Done."}],
            "segment": "completion",
        },
    ],
    "questions": QUESTIONS,
    "tools": [{"type": "function", "function": {"name": "sh"}}],
    "label": "l",
    "kind": "own",
    "category": "c",
    "split": "train",
    "control_id": "a",
}


def mutate_value(draw: random.Random, value: Any) -> Any:
    """Make a copy of `value` in which some part is something else."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(sorted(value))
        changed = dict(value)
        if draw.random() < 0.2:
            del changed[key]
        elif draw.random() < 0.1:
            changed[key + "s"] = changed.pop(key)
        else:
            changed[key] = mutate_value(draw, value[key])
        return changed
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], mutate_value(draw, value[place]), *value[place + 1 :]]
    return draw.choice(ODD_VALUES)


def mutate_bytes(draw: random.Random, data: bytes) -> bytes:
    """Change a few bytes: flipped, cut, left out, doubled, or another's put in."""
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data) + 1)
        some = draw.randint(1, 40)
        match draw.randrange(5):
            case 0:
                data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[at + some :]
            case 3:
                data = data[:at] + data[max(0, at - some) : at] + data[at:]
            case _:
                data = (
                    data[:at]
                    + draw.choice((b"\0", b"\xff\xfe", b"\n", b'"', b"}", b"\x1b[2J"))
                    + data[at:]
                )
    return data


def mutate_yaml(draw: random.Random, text: str) -> str:
    """Change a file at one to three places, as editors, merges and attackers do."""
    for _ in range(draw.randint(1, 3)):
        lines = text.split("\n")
        i = draw.randrange(len(lines))
        match draw.randrange(7):
            case 0:
                lines.pop(i)
            case 1:
                lines.insert(i, lines[draw.randrange(len(lines))])
            case 2:
                lines[i] = " " * draw.randrange(5) + lines[i].lstrip()
            case 3:
                name = lines[i].partition(":")[0]
                lines[i] = f"{name}: {draw.choice(YAML_VALUES)}"
            case 4:
                at = draw.randrange(len(lines[i]) + 1)
                lines[i] = lines[i][:at] + draw.choice(YAML_VALUES) + lines[i][at:]
            case 5:
                at = draw.randrange(len(lines[i]) + 1)
                lines[i] = lines[i][:at] + lines[i][at + 1 :]
            case _:
                lines = lines[: i + 1]
        text = "\n".join(lines)
    return text


def call(*words: str) -> int:
    """Run a command line; it has to end with a result, or with one line that a terminal can show.

    Returns:
        its exit code, 0 or 2.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as done:
            code = done.code
    said = err.getvalue()
    assert code in (0, 2), (code, said)
    if code == 2:
        assert out.getvalue() == ""
        check_line(said.removesuffix("\n"))
        assert said.startswith("latentqa: ")
    return int(code)


def check_line(line: str) -> None:
    assert line
    assert "\n" not in line, line
    assert "Traceback" not in line
    assert terminal_text(line) == line


def check_rows(seed: int, folder: Path) -> None:
    """Import a file of own conversations of which one line is odd: it keeps the good ones."""
    draw = random.Random(seed)
    odd = mutate_value(draw, mutate_value(draw, ROW))
    line = json.dumps(odd, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if draw.random() < 0.4:
        line = mutate_bytes(draw, line)
    good = [{**ROW, "label": name, "control_id": name} for name in ("A", "B", "C")]
    lines = [json.dumps(row).encode() for row in good]
    lines.insert(draw.randint(1, 3), line)
    path = folder / "own.jsonl"
    path.write_bytes(draw.choice((b"\n", b"\r\n")).join(lines))
    out = folder / "rows"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    counts = import_own_conversations(path, out, config=ImportConfig())
    import_own_questions(path, out, out)
    found = [row.label for row in read_conversations(out / CONVERSATIONS_FILE)]
    assert [label for label in found if label in "ABC"] == ["A", "B", "C"], seed
    odd_lines = [one for one in line.split(b"\n") if one.strip()]
    assert counts["examples"] + sum(counts["dropped"].values()) == 3 + len(odd_lines), seed


def check_yaml(seed: int, folder: Path) -> None:
    """Plan a packaged experiment that was changed: a plan, or one line."""
    draw = random.Random(seed)
    text = mutate_yaml(draw, draw.choice(list(packaged_experiments().values())))
    path = folder / "x.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    call("plan", str(path), "--root", str(folder / "root"))


def check_reply(seed: int, folder: Path) -> None:
    """Ask twice an endpoint of which one reply is odd: the good ones are had and kept."""

    def behave(number: int, body: Mapping[str, Any]) -> Any:
        if is_probe(body) or "lantern 0" not in json.dumps(body):
            return 200, {}, good(body)
        draw = random.Random(seed)
        status = draw.choice((200, 200, 200, 400, 500))
        headers = draw.choice(({}, {}, *({"Retry-After": one} for one in ("x", "nan", "-5", "0"))))
        made = good(body, draw.choice((None, json.dumps(mutate_value(draw, {"a": "b"})))))
        match draw.randrange(3):
            case 0:
                return status, headers, mutate_value(draw, mutate_value(draw, made))
            case 1:
                return status, headers, mutate_bytes(draw, json.dumps(made).encode())
            case _:
                return status, headers, draw.choice((b"", b"\x1f\x8b", b"data: {}\n\n", b"<html>"))

    (folder / "log.sqlite").unlink(missing_ok=True)
    with EndpointOfKind(behave) as endpoint:
        for _ in range(2):  # what came the first time stands in the log the second
            try:
                at = resolved(endpoint, retries=1, timeout_s=2)
                found, _ = complete(at, folder, [_request(number) for number in range(4)], 4)
            except LatentQAError as error:
                check_line(str(error))
                continue
            assert [_answer(one) for one in found[1:]] == ["answer"] * 3, (seed, found)
            _answer(found[0])


def _request(number: int) -> Request:
    return Request(
        messages=(("user", f"Write of lantern {number}"),),
        schema=SCHEMA,
        name="test",
        max_tokens=32,
        sampling=SamplingConfig(),
    )


def _answer(outcome: Outcome) -> str:
    """Tell what becomes of an outcome."""
    found = parse_reply(outcome, SCHEMA)
    return found.reason if isinstance(found, Rejection) else "answer"


class ImportedVectors:
    """Vectors as another program left them, in both forms, and the target that they are of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = tiny.save(folder / "model")
        rows = stores.table(folder / "rows", stores.conversations(2))
        stores.fill(rows, folder / "store", resolve_model(str(self.model)))
        words = ("--layer", "2", "--format", "safetensors", "--out", str(folder / "layer"))
        assert call("store", "export", str(folder / "store"), *words) == 0
        values = np.random.default_rng(0).normal(size=(30, 32)).astype(np.float32)
        np.save(folder / "v.npy", values)
        table = {"example_id": ["a", "b"], "row_start": [0, 10], "n_tokens": [10, 20]}
        pq.write_table(pa.table(table), folder / "i.parquet")

    def check(self, seed: int) -> None:
        """Import them with one file changed: a store that verifies, or one line."""
        draw = random.Random(seed)
        place = self.folder / "changed"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder / "layer", place)
        for name in ("v.npy", "i.parquet"):
            shutil.copyfile(self.folder / name, place / name)
        path = draw.choice(sorted(place.iterdir()))
        if path.suffix == ".parquet" and draw.random() < 0.7:
            _mutate_table(draw, path)
        elif path.suffix == ".json" and draw.random() < 0.7:
            path.write_text(json.dumps(mutate_value(draw, json.loads(path.read_text()))))
        else:
            path.write_bytes(mutate_bytes(draw, path.read_bytes()))
        of_array = path.name in ("v.npy", "i.parquet")
        source = (str(place / "v.npy"), "--index", str(place / "i.parquet"))
        words = source if of_array else (str(place),)
        out = place / "out"
        code = call(
            *("store", "import", *words, "--layer", "2"),
            *("--target", str(self.model), "--out", str(out)),
        )
        assert out.exists() == (code == 0), seed
        if code == 0:
            assert verify(out).damaged == (), seed


def _mutate_table(draw: random.Random, path: Path) -> None:
    """Change the values, names or types of a table's columns, as far as a table can hold them."""
    rows = pq.read_table(path).to_pylist()
    changed = mutate_value(draw, rows)
    if draw.random() < 0.5:
        name = draw.choice(sorted(rows[0]))
        changed = [{**row, name: draw.choice(ODD_VALUES)} for row in rows]
    try:
        written = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(changed), written)
    except (pa.ArrowException, TypeError, AttributeError, LookupError, OverflowError, ValueError):
        path.write_bytes(mutate_bytes(draw, path.read_bytes()))
    else:
        path.write_bytes(written.getvalue())
