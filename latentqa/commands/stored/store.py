"""`latentqa store`: inspect, search, verify, export and import activation stores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.errors import ConfigError, DamagedError
from core.text.wording import count, size
from latentqa.api import open_store, store_folder
from latentqa.terminal.options import DEFAULT_ROOT, REF_HELP, JsonOption, RootOption
from latentqa.terminal.printing import print_json, report, say

if TYPE_CHECKING:
    from activation_store.read.reader import ActivationStore

app = typer.Typer(
    help="Inspect, search, verify, export and import activation stores.",
    no_args_is_help=True,
    add_completion=False,
)

ExportFormat = Literal["safetensors", "datasets"]
Codec = Literal["raw", "lossless"]
"""Formats and codecs of activation_store; a test compares them."""

Store = Annotated[str, typer.Argument(metavar="REF", help=f"A store: {REF_HELP}")]


@app.callback()
def _family() -> None:
    """Inspect, search, verify, export and import activation stores."""


@app.command()
def info(ref: Store, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Show a store's content, its target, and how much of it is committed."""
    found = _describe(open_store(ref, root=root))
    if as_json:
        print_json(found)
        return
    shards, canary = found["shards"], found["canary"]
    checked = "not checked yet: the dump has not finished"
    if canary is not None and "imported" in canary:
        checked = "imported: its vectors were not computed here"
    elif canary is not None:
        checked = (
            f"{canary['rows']} sequences recomputed, largest relative difference "
            f"{canary['max_relative']:.2g} (tolerance {canary['tolerance']:.2g})"
        )
    say(found["path"])
    say(f"  sequences  {count(found['sequences'])}, {count(found['tokens'])} tokens")
    say(f"  size       {size(found['bytes'])}")
    say(f"  shards     {shards['committed']} of {shards['planned']} committed")
    say(f"  layers     {', '.join(map(str, found['layers']))}; d_model {found['d_model']}")
    say(f"  numbers    {found['dtype']}, computed in {found['compute_dtype']}; {found['codec']}")
    say(f"  canary     {checked}")
    say(f"  root       {found['root'] or 'none'}")
    for name, value in found["target"].items():
        say(f"  target     {name} {value}")


@app.command()
def verify(ref: Store, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Read every byte of a store and compare it with its digests; exit 1 if any differs."""
    from activation_store.read.verify import verify as check
    from pipelines.artifacts.artifact import flag_damaged

    folder = store_folder(ref, root=root)
    verdict = check(folder)
    planned = "an unknown number of" if verdict.planned is None else verdict.planned
    if as_json:
        print_json({"path": str(folder), **verdict.to_json()})
    else:
        for finding in verdict.damaged:
            say(str(finding))
    if verdict.damaged:
        flag_damaged(folder / finding.file for finding in verdict.damaged)
        raise DamagedError(
            f"store {folder}: {len(verdict.damaged)} of its files are damaged. Run the "
            "experiment again: it recomputes only the affected shards.",
            folder,
        )
    if not as_json:
        state = "good" if verdict.finished else "good so far, the dump has not finished"
        say(f"{folder}: {state}; {verdict.files} files, {verdict.committed} of {planned} shards")


@app.command()
def find(
    ref: Store,
    example: Annotated[str, typer.Argument(metavar="EXAMPLE_ID", help="Id of an example.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Show which rows of the arrays belong to an example."""
    placed = asdict(open_store(ref, root=root).place(example))
    report(as_json, placed, "  ".join(f"{name} {value}" for name, value in placed.items()))


@app.command("export")
def export_(
    ref: Store,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.")],
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="Safetensors files, or a `datasets` folder.")
    ],
    layer: Annotated[
        int | None,
        typer.Option("--layer", help="Block, counted from 0; required if the store has several."),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Write the vectors of one layer, with example ids, in a format that other programs read."""
    from activation_store.exchange.exporting import export_layer

    store = open_store(ref, root=root)
    counts = export_layer(store, store.only_layer(layer), out.expanduser(), format=format_)
    text = f"{out}: layer {counts.layer} of {counts.examples} examples"
    report(as_json, {"out": str(out), **asdict(counts)}, text)


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder of .safetensors files, or one .npy file [N, d_model]."
        ),
    ],
    layer: Annotated[
        int, typer.Option("--layer", help="Block, counted from 0, whose output the vectors are.")
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar="MODEL", help="Model that the vectors were captured from."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the store.")],
    index: Annotated[
        Path | None,
        typer.Option(
            "--index", help="For .npy: a Parquet table of example_id, row_start and n_tokens."
        ),
    ] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="For .npy of uint16: the bits are bfloat16.")
    ] = False,
    codec: Annotated[
        Codec, typer.Option("--codec", help="How the activations are packed (docs/store.md).")
    ] = "raw",
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", metavar="DIR", help="PEFT adapter that is part of the target."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a store from vectors that another program captured."""
    from activation_store.exchange import vector_sources
    from activation_store.exchange.importing import VectorImport, import_vectors
    from activation_store.model_files.files import resolve_model
    from activation_store.target.load import model_shape

    if source.suffix == ".npy" and index is None:
        raise ConfigError(
            "--index: missing, expected a Parquet table of the examples in the .npy file."
        )
    if source.suffix != ".npy" and index is not None:
        raise ConfigError(f"--index: got it with {source}, expected it only with a .npy file.")
    model = resolve_model(target, adapter)
    shape = model_shape(model)
    config = VectorImport.model_validate({"layer": shape.layer(layer, "--layer"), "codec": codec})
    if index is not None:
        found = vector_sources.open_memmap(source, index, bfloat16=bfloat16)
    else:
        found = vector_sources.open_safetensors(source)
    target_digests = model.digests()
    vector_sources.check_declared(found, layer=config.layer, shape=shape, target=target_digests)
    result = import_vectors(found, out, config=config, target=target_digests)
    text = f"{out}: {result.sequences} examples, {result.tokens} tokens"
    report(as_json, {"out": str(out), **asdict(result)}, text)


def _describe(store: ActivationStore) -> dict[str, Any]:
    from activation_store.layout.arrays import CANARY_FILE
    from activation_store.layout.checksummed_json import read_checksummed_json
    from activation_store.layout.root_record import root_digest
    from core.files import folder_bytes

    plan, canary = store.plan, store.root / CANARY_FILE
    return {
        "path": str(store.root),
        **{name: plan[name] for name in ("sequences", "tokens")},
        "bytes": folder_bytes(store.root),
        "shards": {"committed": len(store.commits), "planned": plan["n_shards"]},
        **{name: plan[name] for name in ("layers", "d_model", "dtype", "compute_dtype", "target")},
        "codec": store.codec,
        "canary": read_checksummed_json(canary) if canary.is_file() else None,
        "root": root_digest(store.root),
    }
