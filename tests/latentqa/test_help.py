"""Help texts: complete, plain, and true to the code behind them."""

from __future__ import annotations

import logging
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich.markup
import typer.main
from command_line import Called

from activation_store.exchange.exporting import FORMATS as STORE_FORMATS
from activation_store.layout.config import Codec
from core.records.tables import Split, View
from generators.exchange.config import DataFormat
from generators.exchange.exporting import FORMATS as ROW_FORMATS
from latentqa.cli import app
from latentqa.commands.stored import data, store
from latentqa.terminal.options import SplitName, StepName, ViewName
from pipelines.steps.order import every_step

CHECKOUT = Path(__file__).parents[2]


def commands(command: Any, name: str = "latentqa") -> Iterator[tuple[str, Any]]:
    """List every command that can be called, with its whole name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, below in inner.items():
        yield from commands(below, f"{name} {word}")


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_and_what_each_option_means(name: str) -> None:
    texts = [COMMANDS[name].help, *(parameter.help for parameter in COMMANDS[name].params)]
    assert all(text and text.strip().split("\n\n")[0].endswith((".", "?")) for text in texts)


@pytest.mark.parametrize("name", COMMANDS)
def test_brackets_in_a_help_text_are_shown_and_no_markup(name: str) -> None:
    for text in (COMMANDS[name].help, *(parameter.help for parameter in COMMANDS[name].params)):
        assert rich.markup.render(text).plain == text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json_if_asked(name: str) -> None:
    assert "--json" in {option for p in COMMANDS[name].params for option in p.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_decoder_is_an_argument_and_an_output_is_out(name: str) -> None:
    options = {option for p in COMMANDS[name].params for option in p.opts}
    assert not options & {"--decoder", "--to", "--folder", "--html", "--output", "--push-to-hub"}


@pytest.mark.parametrize(
    ("shown", "known"),
    [
        (ViewName, typing.get_args(View)),
        (SplitName, typing.get_args(Split)),
        (data.ImportFormat, typing.get_args(DataFormat)),
        (data.ExportFormat, ROW_FORMATS),
        (store.ExportFormat, STORE_FORMATS),
        (store.Codec, typing.get_args(Codec)),
        (StepName, {step.name for step in every_step() if step.listed}),
    ],
    ids=["view", "split", "import", "export", "store export", "codec", "step"],
)
def test_choices_are_those_of_the_code(shown: Any, known: Any) -> None:
    assert set(typing.get_args(shown)) == set(known)


@pytest.mark.parametrize("words", [(), ("ask",), ("data", "show")])
def test_h_is_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, *words, "-h")
    assert (called.code, called.out) == (0, Called(capsys, *words, "--help").out)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, "--version")
    assert (called.code, called.out.split()[0]) == (0, "latentqa")
    assert called.out.split()[1][0].isdigit()


def test_a_shell_completes_commands_and_choices() -> None:
    def complete(words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "latentqa.cli"],
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(CHECKOUT),
                "_LATENTQA_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split())),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    assert {"run", "map", "init"} <= set(complete("latentqa ").split())
    assert {"safetensors", "datasets"} <= set(complete("latentqa store export x --format ").split())


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latentqa", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_reach_the_terminal_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    Called(capsys, "--version")
    said = logging.makeLogRecord({"msg": "%s", "args": ("a\x9b2J\u202eb",)})
    assert logging.lastResort is not None
    assert logging.lastResort.format(said) == "a\ufffd2J\ufffdb"
