"""Every number of an experiment file at values that accidents bring: a plan, or one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from command_line import Called

from pipelines.experiment.config import Experiment

VALUES = ("0", "-1", str(2**31), str(2**62), "1.0e+308", ".nan", ".inf")
BASE = """
experiment: x
generate:
  conversations: {{kinds: {{profile: {{controls: 6}}}}}}
  endpoint: {{model: m, base_url: "http://127.0.0.1:9"}}
dump: {{model: {model}, layers: [1]}}
complete: {{}}
quality: {{}}
robustness: {{}}
tasks: {{prompts: {{}}}}
control: {{}}
runtime: {{device: cpu, threads: 1}}
"""
_KEYS = {"kinds": "profile", "mixture": "persona", "max_flagged": "empty", "categories": "x"}
"""Keys of mappings that have keys of the user's own."""


def fields() -> Iterator[tuple[str, str]]:
    """Yield the dotted path of each number that a file can hold, and what it stands in there."""
    schema = Experiment.model_json_schema()

    def walk(node: dict[str, Any], path: str) -> Iterator[str]:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        for part in (*node.get("anyOf", ()), *node.get("prefixItems", ())):
            yield from walk(part, path + ("[" if "prefixItems" in node else ""))
        if node.get("type") in ("integer", "number"):
            yield path
        for name, part in node.get("properties", {}).items():
            yield from walk(part, f"{path}.{name}")
        for key, mark in (("items", "["), ("additionalProperties", "{")):
            if isinstance(node.get(key), dict):
                yield from walk(node[key], path + mark)

    for path in dict.fromkeys(walk(schema, "")):
        if "endpoint" not in path or path.startswith(".generate"):  # all endpoints are alike
            yield _as_override(path.removeprefix("."))


def _as_override(path: str) -> tuple[str, str]:
    """Return the field to set, and its value with `VALUE` in place of the number."""
    parts = path.replace("[", ".[").replace("{", ".{").split(".")
    cut = next((i for i, part in enumerate(parts) if part in "[{"), len(parts))
    text = "VALUE"
    for i in range(len(parts) - 1, cut - 1, -1):
        if parts[i] == "[":
            text = f"[{text}]"
        else:
            key = _KEYS[parts[i - 1]] if parts[i] == "{" else parts[i]
            text = f"{{{key}: {text}}}"
    return ".".join(parts[:cut]), text


FIELDS = sorted(fields())


def test_all_fields_are_found() -> None:
    names = [name for name, _ in FIELDS]
    assert len(names) > 150
    assert {"train.rows_per_batch", "train.mixture", "dump.layers", "runtime.workers"} <= {*names}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.prove)])
@pytest.mark.parametrize("value", VALUES)
def test_a_number_is_planned_with_or_refused_in_a_line(
    value: str,
    every: int,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(BASE.format(model=model))
    for name, text in FIELDS[VALUES.index(value) % every :: every]:
        given = f"{name}={text.replace('VALUE', value)}"
        called = Called(capsys, "plan", "x.yaml", "--set", given)
        if called.code:
            assert name.partition(".")[0] in called.refused(), given
        else:
            assert "Traceback" not in called.err, given
