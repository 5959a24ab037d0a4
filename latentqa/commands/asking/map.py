"""`latentqa map`: of which tokens and blocks an answer can be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import ConfigError
from core.text.terminal import plain_console
from latentqa.terminal.answers_view import print_foreign, reader_document
from latentqa.terminal.option_groups import ConversationOptions, ReaderOptions, takes_groups
from latentqa.terminal.options import JsonOption, check_out_folder
from latentqa.terminal.printing import print_json, say

if TYPE_CHECKING:
    from pipelines.asking.reader import Reader
    from pipelines.asking.reading_map import ReadingMap


@takes_groups
def map_(
    *,
    question: Annotated[
        str, typer.Option("--question", metavar="TEXT", help="The question whose answer is mapped.")
    ],
    said: ConversationOptions,
    answer: Annotated[
        str | None,
        typer.Option(
            "--answer", metavar="TEXT", help="Map this answer instead of the decoder's own."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="K,K,…",
            help="Blocks of the map; -1 is the last.",
            show_default="about eight, evenly spaced",
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="Width of a window, in tokens.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Also write map.png, map.svg and map.csv to this folder."
        ),
    ] = None,
    decoder: ReaderOptions,
    as_json: JsonOption = False,
) -> None:
    """Map where an answer can be read, over blocks and windows of tokens.

    A cell is the answer's log-probability given the activations of one window at one block, minus
    its log-probability given none, in nats per token.
    """
    said.check_one_source("map")
    check_out_folder("map", out)
    from pipelines.asking.map_view import write_map
    from pipelines.asking.reading_map import reading_map

    numbers = None if layers is None else _parse_layers(layers)
    prompt = said.make_prompt([question])
    reader = decoder.load()
    found = reading_map(
        reader, prompt, answer=answer, layers=numbers, window=window, max_tokens=said.max_tokens
    )
    files = [] if out is None else write_map(found, out.expanduser())
    if as_json:
        named = [path.as_posix() for path in files]
        print_json({**reader_document(reader), **found.to_json(), "files": named})
        return
    _print_map(reader, found, prompt.view)
    for path in files:
        say(path)


def _print_map(reader: Reader, found: ReadingMap, view: str) -> None:
    from pipelines.asking.map_view import print_map

    whose = "the decoder's own answer" if found.written else "the answer given"
    say(f"{reader.name}, view {view}; * marks what it was trained on")
    print_foreign(reader)
    say(f"\nQ: {found.question}")
    say(f"A: {found.answer}   ({whose})")
    say("\nNats a token, given each window's activations, above given none:\n")
    print_map(found, plain_console())


def _parse_layers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--layers: got {text!r}, expected blocks such as 0,7,14.") from error
