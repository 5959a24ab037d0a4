"""Arguments and options that several commands share."""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import ConfigError

DEFAULT_ROOT = Path("artifacts")
MOST_TOKENS = 100_000
MOST_SEED = 2**32 - 1
"""Largest numbers that the options of asking and steering take."""
REF_HELP = "name[:version|latest], such as quickstart; kind/key-prefix; or a path."

StepName = Literal[
    "conversations",
    "questions",
    "complete",
    "quality",
    "dump",
    "train",
    "train_prior",
    "train_visible_text",
    "train_text",
    "evaluate",
    "judge",
    "robustness",
    "tasks",
    "judge_tasks",
    "control",
    "judge_control",
]
"""Steps at which a run can stop; a test compares them with those of pipelines/steps."""

ViewName = Literal["control", "stimulus", "stimulus_completion", "system"]
SplitName = Literal["train", "validation", "test", "test_seen", "test_ood"]
"""Views and splits as in core/records/tables.py, which takes too long to import for a help text; a
test compares them."""

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="An experiment file (YAML).")]
RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help=f"An artifact or a run: {REF_HELP}")
]
DecoderArgument = Annotated[
    str,
    typer.Argument(metavar="DECODER", help=f"A trained decoder: {REF_HELP}"),
]


def _keep_from_gc(context: typer.Context, root: Path) -> Path:
    """Keep garbage collection away from the root until the command ends."""
    if not context.resilient_parsing:
        from pipelines.artifacts.root import kept_from_gc

        context.with_resource(kept_from_gc(root.expanduser()))
    return root


RootOption = Annotated[
    Path,
    typer.Option(
        "--root",
        metavar="DIR",
        envvar="LATENTQA_ROOT",
        help="Folder of all artifacts.",
        callback=_keep_from_gc,
    ),
]
SharedRootOption = Annotated[
    Path,
    typer.Option("--root", metavar="DIR", envvar="LATENTQA_ROOT", help="Folder of all artifacts."),
]
"""For garbage collection itself, and for what runs until it is stopped."""
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field, such as train.lora.rank=8; repeatable.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
RepoOption = Annotated[
    str | None,
    typer.Option(
        "--repo",
        metavar="ORG/NAME",
        help="Upload to this repository of the hub, with the token in HF_TOKEN.",
    ),
]
PrivateOption = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]


def check_finite(command: str, **options: float) -> None:
    """Refuse a number that is none, which no bound of an option refuses.

    Raises:
        ConfigError: names the command and the option.
    """
    for name, value in options.items():
        if not math.isfinite(value):
            raise ConfigError(f"{command}: --{name} is {value:g}, expected a finite number.")


def check_out_folder(command: str, out: Path | None) -> None:
    """Refuse a file in place of the folder `--out`, before any work is done.

    Raises:
        ConfigError: names the command and the file.
    """
    if out is not None and out.expanduser().exists() and not out.expanduser().is_dir():
        raise ConfigError(f"{command}: --out {out} is a file, expected a folder. Name another.")


def root_words(root: Path) -> str:
    """Spell the ` --root DIR` that a command to type next needs; empty where it is implied."""
    implied = {str(DEFAULT_ROOT), os.environ.get("LATENTQA_ROOT", str(DEFAULT_ROOT))}
    return "" if str(root) in implied else f" --root {shlex.quote(str(root))}"
