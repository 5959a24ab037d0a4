"""`latentqa map`: of which tokens and blocks an answer can be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import ConfigError
from core.terminal import plain_console
from latentqa.api import load
from latentqa.terminal.answers_view import print_foreign, reader_document
from latentqa.terminal.conversation import (
    AdapterOption,
    DeviceOption,
    ForeignAdapterOption,
    ForeignTargetOption,
    MaxTokensOption,
    MessagesOption,
    ModelOption,
    PromptOption,
    StimulusOption,
    SystemOption,
    TokensOption,
    expect_one_of,
    make_one_prompt,
)
from latentqa.terminal.options import DEFAULT_ROOT, DecoderArgument, JsonOption, RootOption
from latentqa.terminal.printing import print_json, say

if TYPE_CHECKING:
    from pipelines.asking.reader import Reader
    from pipelines.asking.reading_map import ReadingMap


def map_(
    decoder: DecoderArgument,
    question: Annotated[
        str, typer.Option("--question", metavar="TEXT", help="The question whose answer is mapped.")
    ],
    prompt: PromptOption = None,
    system: SystemOption = None,
    stimulus: StimulusOption = None,
    messages: MessagesOption = None,
    tokens: TokensOption = "visible",
    answer: Annotated[
        str | None,
        typer.Option("--answer", metavar="TEXT", help="Map this answer, not the decoder's own."),
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
    max_tokens: MaxTokensOption = 40,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    foreign_target: ForeignTargetOption = None,
    foreign_adapter: ForeignAdapterOption = None,
    device: DeviceOption = "auto",
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Map where an answer can be read: over blocks and windows of tokens.

    A cell is the answer's log-probability given the activations of one window of tokens at one
    block, less its log-probability given none, in nats per token.
    """
    expect_one_of("map", prompt=prompt, messages=messages)
    from pipelines.asking.map_view import write_map
    from pipelines.asking.reading_map import reading_map

    numbers = None if layers is None else _parse_layers(layers)
    one = make_one_prompt(
        [question],
        prompt=prompt,
        system=system,
        stimulus=stimulus,
        messages=messages,
        tokens=tokens,
    )
    reader = load(
        decoder,
        root=root,
        model=model,
        adapter=adapter,
        device=device,
        foreign_target=foreign_target,
        foreign_adapter=foreign_adapter,
    )
    found = reading_map(
        reader, one, answer=answer, layers=numbers, window=window, max_tokens=max_tokens
    )
    files = [] if out is None else write_map(found, out.expanduser())
    if as_json:
        named = [path.as_posix() for path in files]
        print_json({**reader_document(reader), **found.to_json(), "files": named})
        return
    _print_map(reader, found, one.view)
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
