"""`latentqa ask`: questions to a trained decoder about the activations of a conversation."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError, DataError
from latentqa.commands.options import DEFAULT_ROOT, REF_HELP, JsonOption, RootOption, print_json

if TYPE_CHECKING:
    from pipelines.asking.asked import Asked, Prompt
    from pipelines.asking.reader import AskOptions, Reader

_TOKENS = "visible, all, segment:NAME, range:START:STOP, match:REGEX or last:N"


def ask(
    decoder: Annotated[
        str,
        typer.Option(
            "--decoder", metavar="REF", help=f"A trained decoder. {REF_HELP} Or its folder."
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="What a user says to the target.")
    ] = None,
    question: Annotated[
        list[str],
        typer.Option("--question", metavar="TEXT", help="A question; may be given many times."),
    ] = [],  # noqa: B006 - typer's default, never changed
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="A system prompt before the prompt."),
    ] = None,
    stimulus: Annotated[
        str | None,
        typer.Option(
            "--stimulus",
            metavar="TEXT",
            help="What the user says next, once the target has acknowledged the prompt.",
        ),
    ] = None,
    messages: Annotated[
        str | None,
        typer.Option(
            "--messages",
            metavar="JSON",
            help="A whole dialogue instead: a list of {role, content}, its file, or - for stdin.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="PATH",
            help="Many prompts instead: JSON lines (.jsonl), or text with one a line. "
            "Answers are JSON lines on stdout.",
        ),
    ] = None,
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="CHOICE", help=f"Which tokens are read: {_TOKENS}.")
    ] = "visible",
    layer: Annotated[
        int | None,
        typer.Option("--layer", min=-1, help="Block that is read, instead of the trained one."),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="Also draw so many answers, and compare them.")
    ] = 0,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.01, help="Temperature of the drawn answers.")
    ] = 0.7,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawn answers.")] = 0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")
    ] = 40,
    as_map: Annotated[
        bool,
        typer.Option(
            "--map", help="Where can the answer be read? Over blocks and windows of tokens."
        ),
    ] = False,
    answer: Annotated[
        str | None,
        typer.Option("--answer", metavar="TEXT", help="With --map: this, not the decoder's own."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option("--layers", metavar="K,K,…", help="With --map: these blocks; -1 is the last."),
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="With --map: tokens of a window.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="With --map: also write map.png, map.svg and map.csv."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Where the decoder's target is now, if it has moved."),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", help="Where the target's own adapter is now, likewise."),
    ] = None,
    foreign_target: Annotated[
        str | None,
        typer.Option(
            "--foreign-target",
            metavar="MODEL",
            help="Read this model instead of the decoder's own target; every result says so.",
        ),
    ] = None,
    foreign_adapter: Annotated[
        str | None,
        typer.Option(
            "--foreign-adapter",
            metavar="FOLDER",
            help="A fine-tune to read: an adapter of the foreign target, or of the target itself.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Ask a decoder about the activations of a conversation.

    The target runs on it; the decoder is given activations, none of its text, and answers. Which
    activations it reads:

    --prompt alone (view control): those of the whole prompt.

    --system and --prompt (view system): a decoder with masking reads those of the prompt, where
    the system prompt shows only by what attention carried there.

    --prompt and --stimulus (view stimulus): likewise, those of the stimulus.

    --messages: all of a dialogue, but for a system message that comes first.

    --tokens names others; --layer another block.

    --map asks of which tokens and blocks the answer can be read: its log-probability given each
    window of tokens at each block, above that given none.
    """
    _one_of(prompt=prompt, messages=messages, file=file)
    _check_map(
        as_map,
        {"--file": file, "--layer": layer, "--samples": samples or None},
        {"--answer": answer, "--layers": layers, "--window": window, "--out": out},
    )
    if file is None and not question:
        raise ConfigError("ask: nothing is asked; expected --question TEXT at least once.")
    from pipelines.asking.dialogue import parse_dialogue
    from pipelines.asking.load import load
    from pipelines.asking.reader import AskOptions, make_prompt

    opened = functools.partial(
        load,
        decoder,
        root=root,
        model=model,
        adapter=adapter,
        device=device,
        foreign_target=foreign_target,
        foreign_adapter=foreign_adapter,
    )
    options = AskOptions(
        layer=layer, max_tokens=max_tokens, samples=samples, temperature=temperature, seed=seed
    )
    if file is not None:
        if system is not None or stimulus is not None:
            raise ConfigError("ask: got --file and --system or --stimulus; put them in its lines.")
        from pipelines.asking.prompts_file import read_prompts

        lines = read_prompts(file, question, tokens)
        reader = opened()
        _answer_file(reader, [(line.id, line.prompt) for line in lines], options)
        return
    made = make_prompt(
        parse_dialogue(*_dialogue_text(messages)) if messages is not None else prompt or "",
        question,
        system=system,
        stimulus=stimulus,
        tokens=tokens,
    )
    reader = opened()
    if as_map:
        _print_map(reader, made, answer, layers, window, out, max_tokens, as_json=as_json)
        return
    asked = reader.ask_prompt(made, options)
    if as_json:
        print_json({**_reader_document(reader), **asked.to_json()})
    else:
        _print_answers(reader, asked)


def _one_of(**given: object) -> None:
    """Refuse none and several of the ways to say what is read."""
    named = [f"--{name}" for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ConfigError(
            f"ask: expected one of {', '.join(f'--{name}' for name in given)}, "
            f"got {' and '.join(named) or 'none'}."
        )


def _check_map(as_map: bool, others: dict[str, object], its: dict[str, object]) -> None:
    """Refuse options of a map without one, and with one those that it has not."""
    wrong = others if as_map else its
    named = [name for name, value in wrong.items() if value is not None]
    if named:
        raise ConfigError(
            f"ask: got {named[0]} {'with' if as_map else 'without'} --map; "
            f"{'a map has no such option' if as_map else 'it belongs to a map'}."
        )


def _print_map(
    reader: Reader,
    prompt: Prompt,
    answer: str | None,
    layers: str | None,
    window: int | None,
    out: Path | None,
    max_tokens: int,
    *,
    as_json: bool,
) -> None:
    from rich.console import Console

    from pipelines.asking.map_view import print_map, write_map
    from pipelines.asking.reading_map import reading_map

    found = reading_map(
        reader,
        prompt,
        answer=answer,
        layers=None if layers is None else _numbers(layers),
        window=window,
        max_tokens=max_tokens,
    )
    files = [] if out is None else write_map(found, out)
    if as_json:
        named = [path.as_posix() for path in files]
        print_json({**_reader_document(reader), **found.to_json(), "files": named})
        return
    whose = "the decoder's own answer" if found.written else "the answer given"
    typer.echo(f"{reader.name}, view {prompt.view}; * marks what it was trained on")
    _print_foreign(reader)
    typer.echo(f"\nQ: {_shown(found.question)}")
    typer.echo(f"A: {_shown(found.answer)}   ({whose})")
    typer.echo("\nNats a token, given each window's activations, above given none:\n")
    print_map(found, Console(highlight=False))
    for path in files:
        typer.echo(path)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--layers: got {text!r}, expected blocks such as 0,7,14.") from error


def _dialogue_text(messages: str) -> tuple[str, str]:
    """The JSON that `--messages` means, and where it is from."""
    if messages == "-":
        return sys.stdin.read(), "stdin"
    if messages.lstrip().startswith(("[", "{")):
        return messages, "--messages"
    try:
        return Path(messages).read_text(encoding="utf-8"), messages
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{messages}: cannot be read as UTF-8 text ({error}).") from error


def _answer_file(
    reader: Reader, lines: list[tuple[str | int, Prompt]], options: AskOptions
) -> None:
    """Print a JSON line for each prompt; one that cannot be asked has its reason.

    Raises:
        DataError: some could not be asked.
    """
    about, failed = _reader_document(reader), 0
    for (name, _), found in zip(
        lines, reader.ask_each([prompt for _, prompt in lines], options), strict=True
    ):
        if isinstance(found, Exception):
            failed += 1
            document: dict[str, Any] = {"id": name, "error": str(found)}
        else:
            document = {"id": name, **about, **found.to_json()}
        typer.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))
    if failed:
        raise DataError(
            f"ask: {failed} of {len(lines)} prompts could not be asked; their lines say why "
            "(key `error`)."
        )


def _reader_document(reader: Reader) -> dict[str, Any]:
    return {
        "decoder": reader.name,
        "model": reader.decoder.binding.model,
        "trained_layers": list(reader.trained_layers),
        "foreign_target": None if reader.foreign is None else reader.foreign.to_json(),
    }


def _print_answers(reader: Reader, asked: Asked) -> None:
    trained = reader.trained_layers
    beside = ""
    if not set(asked.layers) <= set(trained):
        beside = f" (the decoder was trained on {_blocks(trained)})"
    typer.echo(
        f"{reader.name}, view {asked.view}: {asked.activations} activations of "
        f"{_blocks(asked.layers)}{beside}"
    )
    _print_foreign(reader)
    if asked.familiarity is not None and asked.familiarity.out_of_distribution:
        typer.echo(
            f"Unfamiliar: these activations lie farther from those that it was trained on than "
            f"{asked.familiarity.share_nearer:.0%} of {asked.familiarity.rows} held-out rows; its "
            "answers may mean nothing."
        )
    if asked.withheld:
        typer.echo(
            f"{asked.withheld} of them are of tokens that its training withheld: the control's own."
        )
    for question, found, drawn, agreed in zip(
        asked.prompt.questions, asked.answers, asked.samples, asked.agreement, strict=True
    ):
        typer.echo(f"\nQ: {_shown(question)}")
        typer.echo(f"A: {_shown(found.text)}{'' if found.finished else ' …'}")
        sure = f"   {found.log_probability:.2f} nats a token"
        typer.echo(sure if agreed is None else f"{sure}; drawn answers agree {agreed:.2f}")
        for own in drawn:
            typer.echo(f"   drawn: {_shown(own.text)}{'' if own.finished else ' …'}")


def _print_foreign(reader: Reader) -> None:
    if reader.foreign is not None:
        adapter = reader.foreign.adapter
        named = reader.foreign.model + (f" with {adapter}" if adapter else "")
        differs = ", ".join(reader.foreign.differs) or "nothing"
        typer.echo(f"Foreign target {named}: {differs} differs from what it was trained to read.")


def _blocks(layers: tuple[int, ...]) -> str:
    return f"block{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


def _shown(text: str) -> str:
    # what a model writes must not move the cursor or recolour the terminal
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
