"""`latentqa store`: what an activation store holds, and whether its bytes are still the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generators.errors import StoreError
from pipelines.commands.options import (
    DEFAULT_ROOT,
    REF_HELP,
    JsonOption,
    RootOption,
    print_json,
    size,
)

if TYPE_CHECKING:
    from activation_store.reader import ActivationStore

app = typer.Typer(
    help="Look at an activation store, and check it.", no_args_is_help=True, add_completion=False
)

Store = Annotated[str, typer.Argument(metavar="REF", help=f"A store: its folder, or {REF_HELP}")]


@app.callback()
def _family() -> None:
    """Look at an activation store, and check it."""


@app.command()
def info(ref: Store, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Say what a store holds, of which target, and how much of it is committed."""
    from activation_store.reader import ActivationStore

    found = _described(ActivationStore(_folder(ref, root)))
    if as_json:
        print_json(found)
        return
    shards, canary = found["shards"], found["canary"]
    checked = "not checked yet: the dump has not come to its end"
    if canary is not None:
        checked = (
            f"{canary['rows']} sequences recomputed, at most {canary['max_relative']:.2g} off "
            f"relative (tolerance {canary['tolerance']:.2g})"
        )
    typer.echo(found["path"])
    typer.echo(f"  sequences  {found['sequences']}, {found['tokens']} tokens")
    typer.echo(f"  size       {size(found['bytes'])}")
    typer.echo(f"  shards     {shards['committed']} of {shards['planned']} committed")
    typer.echo(f"  layers     {', '.join(map(str, found['layers']))}; d_model {found['d_model']}")
    typer.echo(f"  numbers    {found['dtype']}, computed in {found['compute_dtype']}")
    typer.echo(f"  canary     {checked}")
    for name, value in found["target"].items():
        typer.echo(f"  target     {name} {value}")


@app.command()
def verify(ref: Store, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Read every byte of a store and compare; exit 2 with a line for each file that differs."""
    from activation_store.verify import verify as check

    folder = _folder(ref, root)
    verdict = check(folder)
    planned = "an unknown number of" if verdict.planned is None else verdict.planned
    if as_json:
        print_json({"path": str(folder), **verdict.to_json()})
    else:
        for finding in verdict.findings:
            typer.echo(str(finding))
    if verdict.findings:
        raise StoreError(
            f"store {folder}: {len(verdict.findings)} of its files are not as they were committed. "
            "Run the experiment again: only what they belong to is made anew."
        )
    if not as_json:
        state = "good" if verdict.finished else "good so far, the dump has not come to its end"
        typer.echo(
            f"{folder}: {state}; {verdict.files} files, {verdict.committed} of {planned} shards"
        )


def _folder(ref: str, root: Path) -> Path:
    """The folder of a store: `ref` itself, the `data` of an artifact at it, or a name's dump."""
    from activation_store.layout import COMMITS, PLAN_FILE
    from pipelines.artifacts import DATA, ArtifactRoot
    from pipelines.refs import Refs

    path = Path(ref).expanduser()
    for folder in (path, path / DATA):
        if (folder / PLAN_FILE).is_file() or (folder / COMMITS).is_dir():
            return folder
    return Refs(ArtifactRoot(root.expanduser())).resolve(ref, kind="dump").data


def _described(store: ActivationStore) -> dict[str, Any]:
    from activation_store.layout import CANARY_FILE
    from activation_store.seal import read_sealed

    plan, canary = store.plan, store.root / CANARY_FILE
    return {
        "path": str(store.root),
        **{name: plan[name] for name in ("sequences", "tokens")},
        "bytes": sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file()),
        "shards": {"committed": len(store.commits), "planned": plan["n_shards"]},
        **{name: plan[name] for name in ("layers", "d_model", "dtype", "compute_dtype", "target")},
        "canary": read_sealed(canary) if canary.is_file() else None,
    }
