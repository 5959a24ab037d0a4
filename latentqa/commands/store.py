"""`latentqa store`: what an activation store holds, whether its bytes are the same, in and out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError, StoreError
from latentqa.commands.options import (
    DEFAULT_ROOT,
    REF_HELP,
    JsonOption,
    RootOption,
    print_json,
    size,
)

if TYPE_CHECKING:
    from activation_store.read.reader import ActivationStore

app = typer.Typer(
    help="Look at an activation store, check, mend, export and import it.",
    no_args_is_help=True,
    add_completion=False,
)

Store = Annotated[str, typer.Argument(metavar="REF", help=f"A store: its folder, or {REF_HELP}")]


@app.callback()
def _family() -> None:
    """Look at an activation store, check, mend, export and import it."""


@app.command()
def info(ref: Store, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Say what a store holds, of which target, and how much of it is committed."""
    from activation_store.read.reader import ActivationStore

    found = _described(ActivationStore(_folder(ref, root)))
    if as_json:
        print_json(found)
        return
    shards, canary = found["shards"], found["canary"]
    checked = "not checked yet: the dump has not come to its end"
    if canary is not None and "imported" in canary:
        checked = "imported: its vectors were not computed here"
    elif canary is not None:
        checked = (
            f"{canary['rows']} sequences recomputed, at most {canary['max_relative']:.2g} off "
            f"relative (tolerance {canary['tolerance']:.2g})"
        )
    typer.echo(found["path"])
    typer.echo(f"  sequences  {found['sequences']}, {found['tokens']} tokens")
    typer.echo(f"  size       {size(found['bytes'])}")
    typer.echo(f"  shards     {shards['committed']} of {shards['planned']} committed")
    typer.echo(f"  layers     {', '.join(map(str, found['layers']))}; d_model {found['d_model']}")
    typer.echo(
        f"  numbers    {found['dtype']}, computed in {found['compute_dtype']}; {found['codec']}"
    )
    typer.echo(f"  canary     {checked}")
    typer.echo(f"  root       {found['root'] or 'none'}")
    for name, value in found["target"].items():
        typer.echo(f"  target     {name} {value}")


@app.command()
def verify(ref: Store, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Read every byte of a store and compare; exit 2 with a line for each file that differs."""
    from activation_store.read.verify import verify as check
    from pipelines.artifacts.artifact import flag_damaged

    folder = _folder(ref, root)
    verdict = check(folder)
    planned = "an unknown number of" if verdict.planned is None else verdict.planned
    if as_json:
        print_json({"path": str(folder), **verdict.to_json()})
    else:
        for finding in verdict.damaged:
            typer.echo(str(finding))
    if verdict.damaged:
        flag_damaged(folder / finding.file for finding in verdict.damaged)
        raise StoreError(
            f"store {folder}: {len(verdict.damaged)} of its files are not as they were committed. "
            "Run the experiment again: it computes what they belong to again, and nothing else."
        )
    if not as_json:
        state = "good" if verdict.finished else "good so far, the dump has not come to its end"
        typer.echo(
            f"{folder}: {state}; {verdict.files} files, {verdict.committed} of {planned} shards"
        )


@app.command()
def find(
    ref: Store,
    example: Annotated[str, typer.Argument(metavar="EXAMPLE_ID", help="Id of an example.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Say which rows of every array are an example's."""
    from activation_store.read.reader import ActivationStore

    placed = asdict(ActivationStore(_folder(ref, root)).place(example))
    if as_json:
        print_json(placed)
    else:
        typer.echo("  ".join(f"{name} {value}" for name, value in placed.items()))


@app.command("export")
def export_(
    ref: Store,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="New folder.")],
    format_: Annotated[str, typer.Option("--format", help="safetensors or datasets.")],
    layer: Annotated[
        int | None, typer.Option("--layer", help="Block, from 0; the store's only one if left out.")
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Write a layer's vectors, each example's with its id, in a form that other programs read."""
    from activation_store.exchange.exporting import FORMATS, export_layer
    from activation_store.read.reader import ActivationStore

    if format_ not in FORMATS:
        raise ConfigError(f"--format {format_}: expected one of {', '.join(FORMATS)}.")
    store = ActivationStore(_folder(ref, root))
    counts = export_layer(store, store.only_layer(layer), to, format=format_)
    if as_json:
        print_json({"out": str(to), **asdict(counts)})
    else:
        typer.echo(f"{to}: layer {counts.layer} of {counts.examples} examples")


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder of .safetensors files, or one .npy file [N, d_model]."
        ),
    ],
    layer: Annotated[int, typer.Option("--layer", help="Block, from 0, whose output they are.")],
    target: Annotated[
        str, typer.Option("--target", metavar="MODEL", help="The model that they are of.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="New folder for the store.")],
    index: Annotated[
        Path | None,
        typer.Option(
            "--index", help="For .npy: a Parquet table of example_id, row_start and n_tokens."
        ),
    ] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="For .npy of uint16: the bits are bfloat16.")
    ] = False,
    codec: Annotated[str, typer.Option("--codec", help="raw or lossless.")] = "raw",
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="PEFT adapter that is part of the target.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a store of vectors that another program captured, of a target that you declare."""
    from activation_store.exchange import importing
    from activation_store.target.files import resolve_model
    from activation_store.target.load import model_shape

    if codec not in ("raw", "lossless"):
        raise ConfigError(f"--codec {codec}: expected raw or lossless.")
    if source.suffix == ".npy" and index is None:
        raise ConfigError("--index: a .npy file needs a table of its examples.")
    model = resolve_model(target, adapter)
    shape = model_shape(model)
    config = importing.VectorImport.model_validate(
        {"layer": shape.layer(layer, "--layer"), "codec": codec}
    )
    if index is not None:
        found = importing.open_memmap(source, index, bfloat16=bfloat16)
    else:
        found = importing.open_safetensors(source)
    target_digests = model.digests()
    importing.check_declared(found, layer=config.layer, shape=shape, target=target_digests)
    result = importing.import_vectors(found, to, config=config, target=target_digests)
    if as_json:
        print_json({"out": str(to), **asdict(result)})
    else:
        typer.echo(f"{to}: {result.sequences} examples, {result.tokens} tokens")


def _folder(ref: str, root: Path) -> Path:
    """The folder of a store: `ref` itself, the `data` of an artifact at it, or a name's dump."""
    from activation_store.layout.arrays import COMMITS, PLAN_FILE
    from pipelines.artifacts.artifact import DATA
    from pipelines.artifacts.refs import Refs
    from pipelines.artifacts.root import ArtifactRoot

    path = Path(ref).expanduser()
    for folder in (path, path / DATA):
        if (folder / PLAN_FILE).is_file() or (folder / COMMITS).is_dir():
            return folder
    return Refs(ArtifactRoot(root.expanduser())).resolve(ref, kind="dump").data


def _described(store: ActivationStore) -> dict[str, Any]:
    from activation_store.layout.arrays import CANARY_FILE
    from activation_store.layout.checksummed_json import read_checksummed_json
    from activation_store.layout.root_record import root_digest
    from core.files import bytes_below

    plan, canary = store.plan, store.root / CANARY_FILE
    return {
        "path": str(store.root),
        **{name: plan[name] for name in ("sequences", "tokens")},
        "bytes": bytes_below(store.root),
        "shards": {"committed": len(store.commits), "planned": plan["n_shards"]},
        **{name: plan[name] for name in ("layers", "d_model", "dtype", "compute_dtype", "target")},
        "codec": store.codec,
        "canary": read_checksummed_json(canary) if canary.is_file() else None,
        "root": root_digest(store.root),
    }
