"""`latentqa ls`, `diff`, `tag`, `untag`, `gc` and `verify`: artifacts, their names and upkeep."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.errors import ConfigError, DamagedError, RefError
from core.text.wording import duration, join, program, size
from latentqa.api import open_refs
from latentqa.terminal.options import (
    DEFAULT_ROOT,
    REF_HELP,
    JsonOption,
    RefArgument,
    RootOption,
    SharedRootOption,
    root_words,
)
from latentqa.terminal.printing import print_json, report, say
from latentqa.terminal.version_view import version_lines
from pipelines.artifacts.artifact import IDENTITY, RECORD, Artifact
from pipelines.artifacts.cache_key import SHORT
from pipelines.artifacts.refs import Name, Refs, holders
from pipelines.artifacts.root import ArtifactRoot


def ls(root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """List artifacts with their names, and unfinished ones."""
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
    """Compare two artifacts, or two runs step by step, field by field.

    For runs whose rows differ, also compares counts and flags, tests the drift of distributions,
    and shows sample rows.
    """
    from pipelines.artifacts.diff import compare_artifacts
    from pipelines.versions.comparison import compare_versions

    refs = open_refs(root)
    a, b = refs.resolve_set(left), refs.resolve_set(right)
    both = [step for step in a if step in b]
    if not both:
        raise RefError(
            f"{left} and {right}: have no artifact kind in common ({', '.join(a)}; "
            f"{', '.join(b)}). Compare artifacts of the same kind, or two runs."
        )
    found = {step: compare_artifacts(a[step], b[step]) for step in both}
    rows = compare_versions(a, b)
    if as_json:
        document: dict[str, Any] = {
            step: [{"field": d.field, "left": d.left, "right": d.right} for d in changes]
            for step, changes in found.items()
        }
        print_json(document if rows is None else {**document, "rows": rows.to_json()})
        return
    for step, changes in found.items():
        same = a[step].key == b[step].key
        say(f"{step}: {a[step].short} → {b[step].short}{' (the same)' if same else ''}")
        for change in changes:
            say(f"  {change}")
    if rows is not None and rows.kept + rows.added + rows.removed:
        for line in version_lines(rows):
            say(line)


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


def gc(
    delete: Annotated[
        bool,
        typer.Option("--delete", help="Remove them; without this option they are only listed."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list them (the default).")
    ] = False,
    keep_last: Annotated[
        int | None,
        typer.Option(
            "--keep-last",
            metavar="N",
            min=1,
            help="First remove the names of each experiment's numbered versions, except "
            "the newest N, those of --keep-weekly, `latest`, and tags.",
        ),
    ] = None,
    keep_weekly: Annotated[
        int,
        typer.Option(
            "--keep-weekly",
            metavar="N",
            min=0,
            help="With --keep-last: also keep the newest version of each of N weeks.",
        ),
    ] = 0,
    partials: Annotated[
        bool, typer.Option("--partials", help="Include unfinished artifacts of stopped runs.")
    ] = False,
    root: SharedRootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """List, or remove, artifacts without a name."""
    from pipelines.artifacts.gc import collect_garbage, find_garbage

    if delete and dry_run:
        raise ConfigError("gc: got --delete and --dry-run; expected one of them.")
    if keep_weekly and keep_last is None:
        raise ConfigError("gc: got --keep-weekly without --keep-last; expected both, or neither.")
    place = ArtifactRoot(root.expanduser())
    expired = [] if keep_last is None else _expired(place, keep_last, keep_weekly)
    collect = collect_garbage if delete else find_garbage
    garbage = collect(place, partials=partials, without=expired)
    if as_json:
        print_json(
            {
                "root": str(place.path),
                "deleted": delete,
                "names": [str(name) for name in expired],
                "garbage": [
                    {"name": g.short, "path": str(g.path), "bytes": g.size} for g in garbage
                ],
            }
        )
        return
    for name in expired:
        say(f"{name!s:<32} {'name':>10}")
    for item in garbage:
        say(f"{item.short:<32} {size(item.size):>10}")
    if not expired and not garbage:
        say("Nothing to remove: each artifact has a name, or is an input of one that has.")
    else:
        found = [_counted(len(expired), "name")] if expired else []
        if garbage:
            total = size(sum(item.size for item in garbage))
            found.append(f"{_counted(len(garbage), 'artifact')} without a name ({total})")
        if delete:
            say(f"Removed {join(found)}.")
        else:
            options = {"--keep-last": keep_last, "--keep-weekly": keep_weekly or None}
            words = [f" {option} {n}" for option, n in options.items() if n is not None]
            again = f"{''.join(words)}{' --partials' * partials}{root_words(root)}"
            say(f"To remove {join(found)}:  {program()} gc{again} --delete")
    if not partials and (left := len(place.partials())):
        say(f"{_counted(left, 'unfinished artifact')} kept; --partials includes them.")


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _expired(place: ArtifactRoot, last: int, weekly: int) -> list[Name]:
    """Return the versions of every experiment that the rule does not keep."""
    from pipelines.artifacts.retention import find_expired

    refs = Refs(place)
    experiments = sorted({name.name for name in refs.names() if name.number is not None})
    return [
        one for name in experiments for one in find_expired(refs, name, last=last, weekly=weekly)
    ]


def verify(
    ref: Annotated[
        str | None,
        typer.Argument(metavar="[REF]", help=f"An artifact or a run: {REF_HELP} Default: all."),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of artifacts and compare it with their records; exit 1 if any differs."""
    place = ArtifactRoot(root.expanduser())
    artifacts = place.artifacts() if ref is None else list(Refs(place).resolve_set(ref).values())
    found = [(one.short, one.path, size(one.size), _damaged_files(one)) for one in artifacts] + [
        (f"{path.parent.name}/{path.name}", path, "", [RECORD])
        for path in (place.unreadable() if ref is None else ())
    ]
    bad = [(name, path, files) for name, path, _, files in found if files]
    if as_json:
        print_json([{"name": n, "path": str(p), "damaged": files} for n, p, _, files in found])
    else:
        for name, _, bytes_, files in found:
            state = f"damaged: {', '.join(files)}" if files else "good"
            say(f"{name:<32} {bytes_:>10}  {state}")
    if bad:
        name, path, files = bad[0]
        raise DamagedError(
            f"{name}: {len(files)} of its files differ from the record. Run the experiment "
            "again: it recomputes what it needs.",
            path,
        )


def _damaged_files(artifact: Artifact) -> list[str]:
    return artifact.damaged_files() + ([] if artifact.has_own_identity else [IDENTITY])


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
