"""`latentqa ls`, `show`, `diff`, `tag`, `gc` and `verify`: artifacts and their names."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from core.errors import DamagedError, RefError
from latentqa.commands.options import (
    DEFAULT_ROOT,
    REF_HELP,
    JsonOption,
    RootOption,
    duration,
    print_json,
    size,
)
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.identity import SHORT
from pipelines.artifacts.refs import Refs, holders
from pipelines.artifacts.root import ArtifactRoot

Ref = Annotated[str, typer.Argument(metavar="REF", help=REF_HELP)]


def ls(root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """List artifacts, the names that hold them, and what is unfinished."""
    place = ArtifactRoot(root.expanduser())
    names = holders(Refs(place).names())
    artifacts, partials = place.artifacts(), place.partials()
    if as_json:
        print_json(
            {
                "root": str(place.path),
                "artifacts": [_listed(a, names) for a in artifacts],
                "partial": [
                    {"kind": p.kind, "name": p.short, "path": str(p.path)} for p in partials
                ],
            }
        )
        return
    for artifact in artifacts:
        record = artifact.record
        held = ", ".join(names.get(f"{artifact.kind}/{artifact.key}", []))
        typer.echo(
            f"{artifact.short:<32} {record.get('created', '')[:19]}  {size(artifact.size):>10}"
            f"  {duration(record.get('seconds', 0.0)):>12}  {held}".rstrip()
        )
    for partial in partials:
        typer.echo(f"{partial.short:<32} unfinished")
    if not artifacts and not partials:
        typer.echo(f"{place.path}: no artifacts yet. `latentqa run CONFIG` makes some.")


def show(ref: Ref, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Show what artifacts are, how they were made, and what they hold."""
    place = ArtifactRoot(root.expanduser())
    refs = Refs(place)
    names = holders(refs.names())
    found = refs.resolve_set(ref)
    if as_json:
        print_json(
            [
                {**_listed(a, names), "identity": a.identity, "record": a.record}
                for a in found.values()
            ]
        )
        return
    for artifact in found.values():
        record = {k: v for k, v in artifact.record.items() if k not in ("files", "kind", "key")}
        typer.echo(f"{artifact.kind}/{artifact.key}")
        typer.echo(f"  path     {artifact.path}")
        held = names.get(f"{artifact.kind}/{artifact.key}", [])
        typer.echo(f"  names    {', '.join(held) or 'none'}")
        typer.echo(f"  files    {len(artifact.record['files'])}, {size(artifact.size)}")
        for title, value in (("config", artifact.identity["config"]), *record.items()):
            typer.echo(f"  {title:<8} {json.dumps(value, ensure_ascii=False)}")


def diff(
    left: Ref, right: Ref, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False
) -> None:
    """Compare two artifacts, or two runs step by step, field by field."""
    from pipelines.artifacts.diff import compare

    refs = Refs(ArtifactRoot(root.expanduser()))
    a, b = refs.resolve_set(left), refs.resolve_set(right)
    both = [step for step in a if step in b]
    if not both:
        raise RefError(
            f"{left} and {right}: no kind in common ({', '.join(a)}; {', '.join(b)}). "
            "Compare artifacts of one kind, or two runs."
        )
    found = {step: compare(a[step], b[step]) for step in both}
    if as_json:
        print_json(
            {
                step: [{"field": d.field, "left": d.left, "right": d.right} for d in changes]
                for step, changes in found.items()
            }
        )
        return
    for step, changes in found.items():
        same = a[step].key == b[step].key
        typer.echo(f"{step}: {a[step].short} → {b[step].short}{' (the same)' if same else ''}")
        for change in changes:
            typer.echo(f"  {change}")


def tag(
    ref: Ref,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name, or name:version.")] = "",
    delete: Annotated[
        bool, typer.Option("--delete", help="Forget the name REF instead; artifacts stay until gc.")
    ] = False,
    root: RootOption = DEFAULT_ROOT,
) -> None:
    """Give artifacts a name of their own, which gc respects."""
    refs = Refs(ArtifactRoot(root.expanduser()))
    if delete:
        typer.echo(f"{refs.untag(ref)} is forgotten; `latentqa gc` shows what can go.")
        return
    if not name:
        raise RefError("tag: expected REF and NAME, or --delete with a name.")
    made = refs.tag(ref, name)
    pairs = (target.split("/") for target in made.artifacts)
    shorts = [f"{kind}/{key[:SHORT]}" for kind, key in pairs]
    typer.echo(f"{made} → {', '.join(shorts)}")


def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove it; without this, only list it.")
    ] = False,
    partials: Annotated[
        bool, typer.Option("--partials", help="Also what stopped runs left unfinished.")
    ] = False,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """List, or remove, the artifacts that no name holds."""
    from pipelines.artifacts.gc import collect_garbage, find_garbage

    place = ArtifactRoot(root.expanduser())
    find = collect_garbage if delete else find_garbage
    garbage = find(place, partials=partials)
    if as_json:
        print_json(
            {
                "root": str(place.path),
                "deleted": delete,
                "garbage": [
                    {"name": g.short, "path": str(g.path), "bytes": g.size} for g in garbage
                ],
            }
        )
        return
    for item in garbage:
        typer.echo(f"{item.short:<32} {size(item.size):>10}")
    total = size(sum(item.size for item in garbage))
    if not garbage:
        typer.echo("Everything is held by a name.")
    elif delete:
        typer.echo(f"Removed {len(garbage)} folders, {total}.")
    else:
        typer.echo(f"{len(garbage)} folders, {total}, can go: latentqa gc --delete")


def verify(
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help=REF_HELP)] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of artifacts and compare it with their records; exit 1 where one differs."""
    place = ArtifactRoot(root.expanduser())
    artifacts = place.artifacts() if ref is None else list(Refs(place).resolve_set(ref).values())
    found = [(artifact, artifact.damaged_files()) for artifact in artifacts]
    bad = [(artifact, files) for artifact, files in found if files]
    if as_json:
        print_json([{"name": a.short, "path": str(a.path), "damaged": files} for a, files in found])
    else:
        for artifact, files in found:
            state = f"damaged: {', '.join(files)}" if files else "good"
            typer.echo(f"{artifact.short:<32} {size(artifact.size):>10}  {state}")
    if bad:
        artifact, files = bad[0]
        raise DamagedError(
            f"{artifact.short}: {len(files)} of {len(artifact.record['files'])} files are not as "
            "they were committed; `latentqa run` notices when it reads them and makes them again.",
            artifact.path,
        )


def _listed(artifact: Artifact, names: dict[str, list[str]]) -> dict[str, Any]:
    record = artifact.record
    return {
        "kind": artifact.kind,
        "key": artifact.key,
        "path": str(artifact.path),
        "created": record.get("created"),
        "seconds": record.get("seconds"),
        "bytes": artifact.size,
        "output": artifact.output,
        "names": names.get(f"{artifact.kind}/{artifact.key}", []),
    }
