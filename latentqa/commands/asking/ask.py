"""`latentqa ask`: questions to a trained decoder about the activations of a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError, DataError
from latentqa.terminal.answers_view import print_answers, reader_document
from latentqa.terminal.option_groups import ConversationOptions, ReaderOptions, takes_groups
from latentqa.terminal.options import MOST_SEED, JsonOption, check_finite
from latentqa.terminal.printing import print_json, say

if TYPE_CHECKING:
    from pipelines.asking.reader import AskOptions, Reader
    from pipelines.asking.results import Prompt


@takes_groups
def ask(
    *,
    question: Annotated[
        list[str],
        typer.Option("--question", metavar="TEXT", help="Question; repeatable."),
    ] = [],  # noqa: B006 - typer's default, never changed
    said: ConversationOptions,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="PATH",
            help="File with many prompts instead: JSON Lines (.jsonl), or text with one "
            "per line. Answers are JSON Lines on stdout.",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer", min=-1, help="Read this block instead of the one the decoder was trained on."
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=0,
            max=1000,
            help="Also draw this many answers, and report how far they agree.",
        ),
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0.01, max=100, help="Sampling temperature of the drawn answers."
        ),
    ] = 0.7,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of the drawn answers.")
    ] = 0,
    decoder: ReaderOptions,
    as_json: JsonOption = False,
) -> None:
    """Ask a decoder about the activations of a conversation.

    The target runs on the conversation. The decoder is given activations, none of the text, and
    answers. It reads the activations of:

    --prompt alone (view control): the whole prompt.

    --system and --prompt (view system): the prompt; with masking, the system prompt is withheld and
    reaches the decoder only through attention.

    --prompt and --stimulus (view stimulus): the stimulus; with masking, the prompt is withheld.

    --messages: the whole dialogue, except a system message at its start.

    Choose other tokens with --tokens, another block with --layer. `latentqa map` shows where an
    answer can be read.
    """
    said.check_one_source("ask", file=file)
    check_finite("ask", temperature=temperature)
    if file is None and not question:
        raise ConfigError("ask: got no question, expected --question TEXT at least once.")
    if file is not None and (said.system is not None or said.stimulus is not None):
        raise ConfigError(
            "ask: got --file together with --system or --stimulus, expected "
            "--file alone. Put system and stimulus into the lines of the "
            "file."
        )
    from pipelines.asking.prompts_file import read_prompts
    from pipelines.asking.reader import AskOptions

    options = AskOptions(
        layer=layer,
        max_tokens=said.max_tokens,
        samples=samples,
        temperature=temperature,
        seed=seed,
    )
    if file is not None:
        lines = [(line.id, line.prompt) for line in read_prompts(file, question, said.tokens)]
        _answer_file(decoder.load(), lines, options)
        return
    prompt = said.make_prompt(question)
    reader = decoder.load()
    asked = reader.ask_prompt(prompt, options)
    if as_json:
        print_json({**reader_document(reader), **asked.to_json()})
    else:
        print_answers(reader, asked)


def _answer_file(
    reader: Reader, lines: list[tuple[str | int, Prompt]], options: AskOptions
) -> None:
    """Print a JSON line for each prompt; one that cannot be asked has its reason.

    Raises:
        DataError: some could not be asked.
    """
    about, failed = reader_document(reader), 0
    for (name, _), found in zip(
        lines, reader.ask_each([prompt for _, prompt in lines], options), strict=True
    ):
        if isinstance(found, Exception):
            failed += 1
            document: dict[str, Any] = {"id": name, "error": str(found)}
        else:
            document = {"id": name, **about, **found.to_json()}
        say(json.dumps(document, ensure_ascii=False, allow_nan=False))
    if failed:
        raise DataError(
            f"ask: {failed} of {len(lines)} prompts could not be asked; their output lines "
            "give the reason (key `error`)."
        )
