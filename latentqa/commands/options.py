"""Options that many commands share, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_ROOT = Path("artifacts")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="An experiment file (YAML).")]
RootOption = Annotated[
    Path,
    typer.Option("--root", envvar="LATENTQA_ROOT", help="Folder of all artifacts."),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field, such as train.lora.rank=8; may be given many times.",
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="STEP", help="Stop after this step.")
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Eight rows through every step of this experiment.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
REF_HELP = "A path, kind/key-prefix, or name[:version|latest]."


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def size(count: float) -> str:
    """Bytes in a unit that a person reads."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds in a unit that a person reads."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
