"""`latentqa tag` and `untag`: names for artifacts."""

from __future__ import annotations

from typing import Annotated

import typer

from latentqa.api import open_refs
from latentqa.terminal.options import DEFAULT_ROOT, JsonOption, RefArgument, RootOption
from latentqa.terminal.printing import report
from pipelines.artifacts.cache_key import SHORT


def tag(
    ref: RefArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name, or name:version.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Name artifacts; gc keeps what has a name."""
    made = open_refs(root).tag(ref, name)
    pairs = (target.split("/") for target in made.artifacts)
    shorts = [f"{kind}/{key[:SHORT]}" for kind, key in pairs]
    document = {"name": str(made), "artifacts": list(made.artifacts)}
    report(as_json, document, f"{made} → {', '.join(shorts)}")


def untag(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name, or name:version.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Remove a name; its artifacts stay until gc."""
    gone = open_refs(root).untag(name)
    document = {"name": str(gone), "artifacts": list(gone.artifacts)}
    report(as_json, document, f"Removed the name {gone}; `latentqa gc` lists what can go.")
