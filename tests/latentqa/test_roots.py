"""`--root` of every command: what is no folder, and cannot be one, is one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import Called

from latentqa.cli import app

ARGUMENTS = {"CONFIG": "x.yaml", "[REF]": "dump/abc", "STORE": "dump/abc", "NAME": "n"}
OPTIONS = {"--prompt": "a", "--question": "b", "--control": "c.yaml", "--cron": "0 3 * * *"}
OPTIONS |= {"--vary": "rank=1,2", "--out": "out"}
FORMATS = {"data": "jsonl", "store": "safetensors"}
LEFT_OUT = {("steer", "--question"), ("steer", "--out")}
CONTROL = """control: calm
description: The assistant is calm.
questions: [{question: "Its mood?", answer: "Calm."}]
"""


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with a `--root`, and the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *words, name)
        elif any("--root" in one.opts for one in command.params):
            yield (*words, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def words_of(name: tuple[str, ...]) -> list[str]:
    """Call a command with something for all that it asks for."""
    words = list(name)
    for one in COMMANDS[name].params:
        if one.param_type_name == "argument" and (one.required or one.nargs != 1):
            metavar = str(one.metavar).strip(".")
            words += [ARGUMENTS.get(metavar, "dump/abc")] * (2 if one.nargs != 1 else 1)
        elif (name[0], option := one.opts[0]) not in LEFT_OUT:
            if option == "--format":
                words += [option, FORMATS[name[0]]]
            elif one.required or option in OPTIONS:
                words += [option, OPTIONS.get(option, "out")]
    return words


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", ["file", "below a file", "link to nothing", "device"])
def test_a_root_that_cannot_be_a_folder_is_one_line(
    name: tuple[str, ...],
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("experiment: x\ndata: {path: .}\nschedule: {mode: fresh}\n")
    (tmp_path / "c.yaml").write_text(CONTROL)
    (tmp_path / "link").symlink_to("nowhere")
    root = {
        "file": "x.yaml",
        "below a file": "x.yaml/a/b",
        "link to nothing": "link",
        "device": "/dev/null/x",
    }[kind]
    line = Called(capsys, *words_of(name), "--root", root).refused()
    assert line.startswith(f"latentqa: {root}: ")
    assert line.endswith("is not a folder; expected a folder for artifacts (--root).\n")
