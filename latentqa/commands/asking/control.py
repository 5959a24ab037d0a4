"""`latentqa control write`: an LLM writes a control for steering from one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigError
from latentqa.terminal.options import DEFAULT_ROOT, JsonOption, RootOption
from latentqa.terminal.printing import print_json, say

app = typer.Typer(help="Write a control, towards which a target is steered.", no_args_is_help=True)

_NAME = re.compile(r"[^a-z0-9]+")
_LONGEST_NAME = 40


@app.callback()
def _group() -> None:
    """Keep `write` a command of its own, though it is the only one."""


@app.command()
def write(
    sentence: Annotated[
        str, typer.Argument(metavar="SENTENCE", help="What the target should become.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="New file for the control (YAML).")
    ],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="CONFIG",
            help="Experiment file whose section `generate` sets LLM, budget and prompts.",
            show_default="the embedded model",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the control.",
            show_default="made from the sentence",
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Have an LLM write a control from one sentence: description, questions, wanted answers.

    Its requests use the request log of the root, so the same sentence is paid for once. Read the
    file before you steer with it.
    """
    if out.exists():
        raise ConfigError(f"control: {out} already exists; name a new file with --out.")
    from core.records.steering_control import write_control
    from core.runtime import Runtime
    from generators.making.config import GenerateSection
    from generators.making.externals import texts_of
    from generators.making.steering_controls import write_steering_control
    from pipelines.artifacts.root import ArtifactRoot
    from pipelines.experiment.config import load_experiment
    from pipelines.steps.shared.llm_session import open_llm

    section, runtime = GenerateSection(), Runtime()
    if config is not None:
        experiment = load_experiment(Path(config))
        if experiment.generate is None:
            raise ConfigError(
                f"{config}: has no section `generate`, expected one that sets "
                "the LLM (generate.endpoint)."
            )
        section, runtime = experiment.generate, experiment.runtime
    folder = ArtifactRoot(root.expanduser()).path
    folder.mkdir(parents=True, exist_ok=True)
    with open_llm(
        folder,
        section.endpoint,
        texts_of(section),
        runtime=runtime,
        say=lambda line: say(line, err=True),
    ) as session:
        written = write_steering_control(sentence, name=name or _name_of(sentence), session=session)
    write_control(out, written.control)
    usage = written.usage
    document = {
        "out": str(out),
        "control": written.control.model_dump(mode="json"),
        "rejected": [list(pair) for pair in written.rejected],
        "requests": usage.requests,
        "cached_requests": usage.cached_requests,
        "cost_usd": usage.cost,
    }
    if as_json:
        print_json(document)
        return
    say(f"{out}: {written.control.description}")
    for wanted in written.control.questions:
        say(f"  {wanted.question}  {wanted.answer}")
    say(f"Next:  latentqa steer DECODER --control {out} --prompt TEXT")


def _name_of(sentence: str) -> str:
    """Make a control's name of a sentence: its first words, joined by dashes."""
    return _NAME.sub("-", sentence.lower())[:_LONGEST_NAME].strip("-") or "control"
