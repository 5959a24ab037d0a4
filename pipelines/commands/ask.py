"""`latentqa ask`: questions to a trained decoder about the activations of a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import (
    DEFAULT_ROOT,
    REF_HELP,
    JsonOption,
    RootOption,
    print_json,
)

if TYPE_CHECKING:
    from pipelines.reader import Asked, Reader


def ask(
    decoder: Annotated[
        str,
        typer.Option(
            "--decoder", metavar="REF", help=f"A trained decoder. {REF_HELP} Or its folder."
        ),
    ],
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="What a user says to the target.")
    ],
    question: Annotated[
        list[str],
        typer.Option("--question", metavar="TEXT", help="A question; may be given many times."),
    ],
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
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")
    ] = 40,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Where the decoder's target is now, if it has moved."),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", help="Where the target's own adapter is now, likewise."),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Ask a decoder about the activations of a prompt.

    The target runs on the prompt; the decoder is given its activations, none of its text, and
    answers. Which activations it reads:

    --prompt alone (view control): those of the whole prompt.

    --system and --prompt (view system): a decoder with masking reads those of the prompt, where
    the system prompt shows only by what attention carried there.

    --prompt and --stimulus (view stimulus): likewise, those of the stimulus.
    """
    from pipelines.reader import load

    reader = load(decoder, root=root, model=model, adapter=adapter, device=device)
    asked = reader.ask_all(
        prompt, question, system=system, stimulus=stimulus, max_tokens=max_tokens
    )
    if as_json:
        _print_document(reader, asked, question)
    else:
        _print_answers(reader, asked, question)


def _print_document(reader: Reader, asked: Asked, questions: list[str]) -> None:
    binding = reader.decoder.binding
    print_json(
        {
            "decoder": reader.name,
            "model": binding.model,
            "read_layer": binding.read_layer,
            "view": asked.view,
            "messages": [
                {"role": m.role, "content": m.content, "segment": m.segment} for m in asked.messages
            ],
            "activations": asked.activations,
            "answers": [
                {
                    "question": question,
                    "answer": found.text,
                    "log_probability": found.log_probability,
                    "finished": found.finished,
                }
                for question, found in zip(questions, asked.answers, strict=True)
            ],
        }
    )


def _print_answers(reader: Reader, asked: Asked, questions: list[str]) -> None:
    layer = reader.decoder.binding.read_layer
    typer.echo(
        f"{reader.name}, view {asked.view}: {asked.activations} activations of block {layer}"
    )
    for question, found in zip(questions, asked.answers, strict=True):
        typer.echo(f"\nQ: {_shown(question)}")
        typer.echo(f"A: {_shown(found.text)}{'' if found.finished else ' …'}")


def _shown(text: str) -> str:
    # what a model writes must not move the cursor or recolour the terminal
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
