"""A run as plain values, in which a command line, a schedule and a UI ask for the same thing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from core.text.redact import redact_override
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import load_experiment
from pipelines.experiment.smoke import smoke
from pipelines.running.console import Console
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """A request to run an experiment: file, root, overrides, last step."""

    config: str
    """Path of the experiment file."""
    root: str
    """Path of the artifact root."""
    overrides: Sequence[str] = ()
    """`a.b=c`, each a field and its value in YAML."""
    until: str | None = None
    """Last step to run; None for all."""
    smoke: bool = False
    """Run it at about eight rows."""

    def open(self, console: Console | None = None) -> Runner:
        """Read the experiment, and return a runner of it.

        Raises:
            ConfigError: the file, an override, the root or the step is wrong.
        """
        root = ArtifactRoot(Path(self.root).expanduser())
        experiment = load_experiment(Path(self.config), self.overrides)
        return Runner(
            smoke(experiment) if self.smoke else experiment,
            root,
            until=self.until,
            command=self.command,
            console=console,
        )

    def run(self) -> RunResult:
        """Run it in this process, without Prefect.

        Raises:
            LatentQAError: a step cannot be computed; finished steps stay.
        """
        runner = self.open()
        if runner.experiment.runtime.step_timeout_s is not None:
            runner.console.say("runtime.step_timeout_s: has no effect without a Prefect server.")
        return runner.prepare_and_run()

    @property
    def command(self) -> str:
        """The command line that makes this run, without credentials."""
        line = command_line("run", self.config, overrides=self.overrides)
        if self.until:
            line += f" --until {self.until}"
        return f"{line} --smoke" if self.smoke else line


def command_line(*words: str, overrides: Iterable[str]) -> str:
    """Spell a command without credentials; its settings come last."""
    settings = (word for override in overrides for word in ("--set", override))
    return shlex.join(map(redact_override, ("latentqa", *words, *settings)))


def hide_credentials(overrides: Sequence[str]) -> list[str | SecretStr]:
    """Return parameters of a flow, which Prefect keeps: a credential is shown as asterisks."""
    return [o if redact_override(o) == o else SecretStr(o) for o in overrides]


def reveal(overrides: Sequence[str | SecretStr]) -> tuple[str, ...]:
    """Return the overrides that a flow was given, in plain text."""
    return tuple(o.get_secret_value() if isinstance(o, SecretStr) else o for o in overrides)
