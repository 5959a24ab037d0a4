"""`latentqa ls`, `diff`, `gc` and `verify`: artifacts, their differences and their upkeep."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.errors import DamagedError, RefError
from core.wording import duration, size
from latentqa.terminal.options import DEFAULT_ROOT, REF_HELP, JsonOption, RefArgument, RootOption
from latentqa.terminal.printing import print_json, say
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.refs import Refs, holders
from pipelines.artifacts.root import ArtifactRoot


def ls(root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """List artifacts, the names that hold them, and what is unfinished."""
    place = ArtifactRoot(root.expanduser())
    names = holders(Refs(place).names())
    artifacts, partials = place.artifacts(), place.partials()
    if as_json:
        print_json(
            {
                "root": str(place.path),
                "artifacts": [artifact_document(a, names) for a in artifacts],
                "partial": [
                    {"kind": p.kind, "name": p.short, "path": str(p.path)} for p in partials
                ],
            }
        )
        return
    for artifact in artifacts:
        record = artifact.record
        held = ", ".join(names.get(f"{artifact.kind}/{artifact.key}", []))
        say(
            f"{artifact.short:<32} {record.get('created', '')[:19]}  {size(artifact.size):>10}"
            f"  {duration(record.get('seconds', 0.0)):>12}  {held}".rstrip()
        )
    for partial in partials:
        say(f"{partial.short:<32} unfinished")
    if not artifacts and not partials:
        say(f"{place.path}: no artifacts yet. `latentqa run CONFIG` makes some.")


def diff(
    left: RefArgument,
    right: RefArgument,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
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
        say(f"{step}: {a[step].short} → {b[step].short}{' (the same)' if same else ''}")
        for change in changes:
            say(f"  {change}")


def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove them; without this, only list them.")
    ] = False,
    partials: Annotated[
        bool, typer.Option("--partials", help="Also the unfinished artifacts of stopped runs.")
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
        say(f"{item.short:<32} {size(item.size):>10}")
    total = size(sum(item.size for item in garbage))
    if not garbage:
        say("Everything is held by a name.")
    elif delete:
        say(f"Removed {len(garbage)} folders, {total}.")
    else:
        say(f"{len(garbage)} folders, {total}, can go: latentqa gc --delete")


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
            say(f"{artifact.short:<32} {size(artifact.size):>10}  {state}")
    if bad:
        artifact, files = bad[0]
        raise DamagedError(
            f"{artifact.short}: {len(files)} of {len(artifact.record['files'])} files are not as "
            "they were committed; `latentqa run` notices when it reads them and makes them again.",
            artifact.path,
        )


def artifact_document(artifact: Artifact, names: dict[str, list[str]]) -> dict[str, Any]:
    """Describe an artifact for a JSON document."""
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
