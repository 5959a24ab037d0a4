"""Groups of options that several commands share, each a dataclass."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError, DataError
from core.text.wording import unreadable
from latentqa.terminal.options import (
    DEFAULT_ROOT,
    MOST_TOKENS,
    ConfigArgument,
    DecoderArgument,
    RootOption,
    SetOption,
    StepName,
)

if TYPE_CHECKING:
    from pipelines.asking.reader import Reader
    from pipelines.asking.results import Prompt
    from pipelines.running.request import RunRequest

_TOKENS = "visible, all, segment:NAME, range:START:STOP, match:REGEX or last:N"


def takes_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of each group among its parameters, in the group's place.

    typer then sees every option, and the command gets each group as one value.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if not is_dataclass(kind):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        assert isinstance(kind, type)
        groups[parameter.name] = kind
        annotations = inspect.get_annotations(kind.__init__, eval_str=True)
        parameters += [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(one),
                annotation=annotations[one.name],
            )
            for one in fields(kind)
        ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _default(option: Any) -> Any:
    """Return the default of a field; for typer one that is made anew is a value like any other."""
    if option.default_factory is not MISSING:
        return option.default_factory()
    return inspect.Parameter.empty if option.default is MISSING else option.default


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """An experiment and how it is run."""

    config: ConfigArgument
    root: RootOption = DEFAULT_ROOT
    set_: SetOption = field(default_factory=list)
    until: Annotated[StepName | None, typer.Option("--until", help="Stop after this step.")] = None
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Take about eight rows through every step, as the experiment NAME-smoke.",
        ),
    ] = False

    @property
    def request(self) -> RunRequest:
        """The run that is asked for."""
        from pipelines.running.request import RunRequest

        return RunRequest(
            config=self.config,
            root=str(self.root),
            overrides=self.set_,
            until=self.until,
            smoke=self.smoke,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetOptions:
    """Where a decoder's target is now."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="New place of the decoder's target, if it has moved."
        ),
    ] = None
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter",
            metavar="DIR",
            help="New place of the target's own adapter, if it has moved.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderOptions(TargetOptions):
    """A trained decoder with its target, and where they run."""

    decoder: DecoderArgument
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="auto, cpu, cuda, cuda:N, mps, or spread (some blocks on each GPU).",
        ),
    ] = "auto"
    root: RootOption = DEFAULT_ROOT

    def load(self) -> Reader:
        """Load them; raises as `latentqa.load`."""
        return self._load()

    def _load(
        self, *, foreign_target: str | None = None, foreign_adapter: str | None = None
    ) -> Reader:
        from latentqa.api import load

        return load(
            self.decoder,
            root=self.root,
            model=self.model,
            adapter=self.adapter,
            device=self.device,
            foreign_target=foreign_target,
            foreign_adapter=foreign_adapter,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderOptions(DecoderOptions):
    """A trained decoder, and whose activations it reads."""

    foreign_target: Annotated[
        str | None,
        typer.Option(
            "--foreign-target",
            metavar="MODEL",
            help="Read this model instead of the decoder's own target; every result is marked.",
        ),
    ] = None
    foreign_adapter: Annotated[
        str | None,
        typer.Option(
            "--foreign-adapter",
            metavar="DIR",
            help="Adapter to read: of the foreign target, or of the decoder's own target.",
        ),
    ] = None

    def load(self) -> Reader:
        """Load them; raises as `latentqa.load`."""
        return self._load(foreign_target=self.foreign_target, foreign_adapter=self.foreign_adapter)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationOptions:
    """The conversation that a target runs on, and which of its tokens are read."""

    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="User message to the target.")
    ] = None
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="System prompt before the prompt."),
    ] = None
    stimulus: Annotated[
        str | None,
        typer.Option(
            "--stimulus",
            metavar="TEXT",
            help="Next user message, after the target has acknowledged the prompt.",
        ),
    ] = None
    messages: Annotated[
        str | None,
        typer.Option(
            "--messages",
            metavar="JSON",
            help="Whole dialogue instead: a list of {role, content}, a file with one, or "
            "- for stdin.",
        ),
    ] = None
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="CHOICE", help=f"Which tokens are read: {_TOKENS}.")
    ] = "visible"
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, max=MOST_TOKENS, help="Longest answer, in tokens.")
    ] = 40

    def check_one_source(self, command: str, **more: object) -> None:
        """Refuse none and several of the options that say what is read.

        Args:
            command: its name.
            more: options of the command's own that say it too.

        Raises:
            ConfigError: not exactly one is given.
        """
        sources = {"prompt": self.prompt, "messages": self.messages, **more}
        named = [f"--{name}" for name, value in sources.items() if value is not None]
        if len(named) != 1:
            raise ConfigError(
                f"{command}: expected one of {', '.join(f'--{name}' for name in sources)}, "
                f"got {' and '.join(named) or 'none'}."
            )

    def make_prompt(self, questions: list[str]) -> Prompt:
        """Make the prompt that the options describe.

        Raises:
            ConfigError: options do not go together.
            DataError: a text is empty, or the dialogue is no list of messages.
        """
        from pipelines.asking.conversations import parse_messages
        from pipelines.asking.reader import make_prompt

        said = self.prompt or ""
        return make_prompt(
            said if self.messages is None else parse_messages(*_dialogue_text(self.messages)),
            questions,
            system=self.system,
            stimulus=self.stimulus,
            tokens=self.tokens,
        )


def _dialogue_text(messages: str) -> tuple[str, str]:
    """Read the JSON that `--messages` means; returns it and where it is from."""
    if messages == "-":
        return sys.stdin.read(), "stdin"
    if messages.lstrip().startswith(("[", "{")):
        return messages, "--messages"
    try:
        return Path(messages).read_text(encoding="utf-8"), messages
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(unreadable(messages, error)) from error
