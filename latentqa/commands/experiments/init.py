"""`latentqa init` and `schema`: begin an experiment file, and describe its fields to an editor."""

from __future__ import annotations

import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import ConfigError
from core.text.wording import program
from latentqa.terminal.options import JsonOption
from latentqa.terminal.printing import report, say

TEMPLATE = "template"
_LONGEST_NAME = 200
"""Most characters of an experiment's name, as in pipelines/experiment/config.py."""
SCHEMA_FILE = "experiment.schema.json"
"""The name under which an experiment file looks for its schema, in its own folder."""


def init(
    experiment: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT", help="Packaged experiment to copy (see --list)."),
    ] = TEMPLATE,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="New experiment file.",
            show_default="EXPERIMENT.yaml, or experiment.yaml for the template",
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the packaged experiments and write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented experiment file to start from, and its JSON Schema next to it.

    The experiment is named after the file.
    """
    packaged = packaged_experiments()
    if list_:
        document = [{"name": name, "about": _about(text)} for name, text in packaged.items()]
        report(as_json, document, *(f"{one['name']:<18} {one['about']}" for one in document))
        return
    if experiment not in packaged:
        raise ConfigError(
            f"{experiment}: not a packaged experiment, expected one of {', '.join(packaged)}."
        )
    from core.files import write_bytes

    name = "experiment" if experiment == TEMPLATE else experiment
    target = (out or Path(f"{name}.yaml")).expanduser()
    own = experiment_name(target)
    if target.exists():
        raise ConfigError(f"{target}: already exists; name a new file with --out.")
    schema_path = target.with_name(SCHEMA_FILE)
    write_bytes(schema_path, schema_text().encode())
    write_bytes(target, with_name(packaged[experiment], own).encode())
    report(
        as_json,
        {"experiment": own, "out": str(target), "schema": str(schema_path)},
        f"{target}: the experiment {own}, copied from the packaged {experiment}; "
        f"{schema_path.name} is its schema for editors",
        f"Next:  {program()} plan {shlex.quote(str(target))}",
    )


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the schema to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the JSON Schema of experiment files, with which editors complete and check fields."""
    if out is None:
        say(schema_text().rstrip())
        return
    from core.files import write_bytes

    write_bytes(out.expanduser(), schema_text().encode())
    report(as_json, {"out": str(out)}, f"{out}: the JSON Schema of experiment files")


def packaged_experiments() -> dict[str, str]:
    """Read the experiment files that come with the package, the template first."""
    folder = resources.files("experiments")
    found = {
        path.name.removesuffix(".yaml"): path.read_text(encoding="utf-8")
        for path in folder.iterdir()
        if path.name.endswith(".yaml")
    }
    return dict(sorted(found.items(), key=lambda item: (item[0] != TEMPLATE, item[0])))


def experiment_name(file: Path) -> str:
    """Make the name of an experiment from that of its file."""
    return re.sub(r"[^a-z0-9_-]+", "-", file.stem.lower()).strip("-_")[:_LONGEST_NAME] or "mine"


def with_name(text: str, name: str) -> str:
    """Give an experiment file another name; a comment after it keeps its column."""

    def rename(line: re.Match[str]) -> str:
        named = f"experiment: {name}"
        return named if line[1] is None else f"{named} ".ljust(len(line[0]))

    pattern = r"^experiment: *[^\s#]+( +(?=#))?"
    return re.sub(pattern, rename, text, count=1, flags=re.MULTILINE)


def schema_text() -> str:
    """Write the JSON Schema of experiment files, as the file that editors read."""
    from core.text.terminal import terminal_json
    from pipelines.experiment.config import Experiment

    found: dict[str, Any] = Experiment.model_json_schema()
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return terminal_json({**draft, **found, "title": "An experiment of latentqa"}) + "\n"


def _about(text: str) -> str:
    """Give the first sentence of the comment at the top of an experiment file."""
    lines = text.splitlines()
    comment = [line.lstrip("# ") for line in lines if line.startswith("# ")]
    words = " ".join(line for line in comment if not line.startswith("yaml-language-server"))
    return re.split(r"(?<=[.?])\s", words)[0]
