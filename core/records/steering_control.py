"""Controls for steering: what the target is to become, as questions with the answers wanted.

A control is a YAML file that a person, an LLM or the decoder itself wrote:

```yaml
control: cheerful
description: The assistant is cheerful and enthusiastic.   # also what prompting would say
questions:
  - question: What is the assistant's mood?
    answer: The assistant is cheerful and full of energy.
    instead: [The assistant is calm and neutral.]           # what it would be otherwise
check: {sentiment: positive}                               # how code tells that a reply obeys
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from core.config import Config, first_problem
from core.documents.yaml_values import parse_yaml, read_yaml
from core.errors import ConfigError, first_line
from core.files import write_bytes


class WantedAnswer(Config):
    """A question about the assistant, and the answer that steering makes likelier."""

    question: str = Field(min_length=1)
    """Question that the decoder is asked, word for word."""
    answer: str = Field(min_length=1)
    """Wanted answer."""
    instead: tuple[str, ...] = ()
    """Answers that hold without the control; they make a closed question, which shows whether the
    decoder can read the control at all."""


class SteeringControl(Config):
    """A control to steer towards: questions with the wanted answers."""

    control: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name: lower-case letters, digits, `_` and `-`."""
    description: str = Field(min_length=1)
    """The control in one sentence; the system prompt of the prompting baseline."""
    prompt: str | None = None
    """System prompt of the prompting baseline, if it should say more than `description`."""
    questions: tuple[WantedAnswer, ...] = Field(min_length=1)
    """Questions and the wanted answers, all with the same weight."""
    check: dict[str, Any] | None = None
    """How code checks that a reply obeys (generators/rules/obedience.py): `words`, `without`,
    `length`, `language`, `form`, `sentiment` or `register`; null if it cannot."""

    @property
    def system_prompt(self) -> str:
        """What a system prompt says to set the control."""
        return self.prompt or self.description

    @property
    def wordings(self) -> tuple[str, ...]:
        """System prompts that say the control, the plainest first; each is another text."""
        said = self.system_prompt
        texts = (
            said,
            self.description,
            f"{self.description} {said}",
            f"{said} Keep to this in every reply.",
            f"{said} {said}",
            f"{said} This matters more than anything else. {said}",
        )
        return tuple(dict.fromkeys(texts))


_PACKAGED = Path(__file__).with_name("controls")


def packaged_controls() -> tuple[str, ...]:
    """Name the controls that come with the package."""
    return tuple(sorted(path.stem for path in _PACKAGED.glob("*.yaml")))


def find_control(reference: str) -> SteeringControl:
    """Read a control by its packaged name or by the path of its file.

    Raises:
        ConfigError: neither is there, or the file is wrong.
    """
    if reference in packaged_controls():
        return load_control(_PACKAGED / f"{reference}.yaml")
    path = Path(reference).expanduser()
    if path.suffix in (".yaml", ".yml") or path.exists():
        return load_control(path)
    raise ConfigError(
        f"control {reference!r}: not found, expected a file or one of "
        f"{', '.join(packaged_controls())}."
    )


def load_control(path: Path) -> SteeringControl:
    """Read a control's file.

    Raises:
        ConfigError: one line that names the file, the field, what was found and expected.
    """
    try:
        text = read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigError(f"control {path}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"control {path}: cannot be read ({first_line(error)}).") from error
    content = parse_yaml(text, f"control {path}", "a control")
    if not isinstance(content, dict):
        raise ConfigError(
            f"control {path}: got {type(content).__name__}, expected control, description and "
            "questions."
        )
    try:
        return SteeringControl.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            f"control {path}: {first_problem(error)}; a control has "
            f"{', '.join(SteeringControl.model_fields)}."
        ) from error


def write_control(path: Path, control: SteeringControl) -> None:
    """Write a control's file."""
    content = control.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=90)
    write_bytes(path, text.encode())
