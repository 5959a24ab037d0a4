"""Print on stdout: lines of text that are safe on a terminal, and JSON documents."""

from __future__ import annotations

from typing import Any

import typer

from core.text.terminal import terminal_json, terminal_text


def say(text: object = "", *, end: bool = True, err: bool = False) -> None:
    """Print a text, with control characters made visible.

    Args:
        text: what is printed.
        end: whether the line ends.
        err: on stderr in place of stdout.
    """
    typer.echo(terminal_text(str(text)), nl=end, err=err)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(terminal_json(value))


def report(as_json: bool, document: Any, *lines: object) -> None:
    """Print `document` as JSON where it was asked for, else `lines`."""
    if as_json:
        print_json(document)
        return
    for line in lines:
        say(line)
