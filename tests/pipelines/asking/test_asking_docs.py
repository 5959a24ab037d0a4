"""The commands and the Python of docs/asking.md run, in order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ask_calls import Called, make_root

TEXT = (Path(__file__).parents[3] / "docs" / "asking.md").read_text()
COMMANDS = re.findall(r"^\$ latentqa ((?:ask|map) .*)$", TEXT, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("docs"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(
    command: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```json\n(.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "prompts.jsonl").write_text(lines)
    name, *words = shlex.split(command)
    called = Called(capsys, root, *words, "--max-tokens", "2", "--device", "cpu", command=name)
    assert (called.code, called.err) == (0, "")
    assert called.out
    assert (tmp_path / "map" / "map.png").exists() == ("--out map" in command)


def test_the_python_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(root))
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(block, names)
    assert capsys.readouterr().out.count("\n") >= 4
