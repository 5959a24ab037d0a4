"""Options of `ask` and `map`: what the target reads, and which target and tokens are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pipelines.asking.results import Prompt

_TOKENS = "visible, all, segment:NAME, range:START:STOP, match:REGEX or last:N"

PromptOption = Annotated[
    str | None, typer.Option("--prompt", metavar="TEXT", help="What a user says to the target.")
]
SystemOption = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT", help="A system prompt before the prompt."),
]
StimulusOption = Annotated[
    str | None,
    typer.Option(
        "--stimulus",
        metavar="TEXT",
        help="What the user says next, once the target has acknowledged the prompt.",
    ),
]
MessagesOption = Annotated[
    str | None,
    typer.Option(
        "--messages",
        metavar="JSON",
        help="A whole dialogue instead: a list of {role, content}, its file, or - for stdin.",
    ),
]
TokensOption = Annotated[
    str, typer.Option("--tokens", metavar="CHOICE", help=f"Which tokens are read: {_TOKENS}.")
]
MaxTokensOption = Annotated[
    int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="Where the decoder's target is now, if it has moved."
    ),
]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter", metavar="DIR", help="Where the target's own adapter is now, if it has moved."
    ),
]
ForeignTargetOption = Annotated[
    str | None,
    typer.Option(
        "--foreign-target",
        metavar="MODEL",
        help="Read this model instead of the decoder's own target; every result says so.",
    ),
]
ForeignAdapterOption = Annotated[
    str | None,
    typer.Option(
        "--foreign-adapter",
        metavar="DIR",
        help="A fine-tune to read: an adapter of the foreign target, or of the target itself.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:N or mps; spread puts some blocks on each GPU.",
    ),
]


def expect_one_of(command: str, **given: object) -> None:
    """Refuse none and several of the options that say what is read.

    Raises:
        ConfigError: not exactly one of `given` is set.
    """
    named = [f"--{name}" for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ConfigError(
            f"{command}: expected one of {', '.join(f'--{name}' for name in given)}, "
            f"got {' and '.join(named) or 'none'}."
        )


def make_one_prompt(
    questions: list[str],
    *,
    prompt: str | None,
    system: str | None,
    stimulus: str | None,
    messages: str | None,
    tokens: str,
) -> Prompt:
    """Make the prompt that the options of a command describe.

    Raises:
        ConfigError: options do not go together.
        DataError: a text is empty, or the dialogue is no list of messages.
    """
    from pipelines.asking.conversations import parse_messages
    from pipelines.asking.reader import make_prompt

    said = prompt or "" if messages is None else parse_messages(*_dialogue_text(messages))
    return make_prompt(said, questions, system=system, stimulus=stimulus, tokens=tokens)


def _dialogue_text(messages: str) -> tuple[str, str]:
    """Read the JSON that `--messages` means; returns it and where it is from."""
    if messages == "-":
        return sys.stdin.read(), "stdin"
    if messages.lstrip().startswith(("[", "{")):
        return messages, "--messages"
    try:
        return Path(messages).read_text(encoding="utf-8"), messages
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{messages}: cannot be read as UTF-8 text ({error}).") from error
