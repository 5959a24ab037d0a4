"""`latentqa data`: import files, show rows, count them, export them in other formats."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.errors import ConfigError, DataError
from core.files import new_folder, write_bytes, write_json
from latentqa.terminal.options import (
    DEFAULT_ROOT,
    JsonOption,
    PrivateOption,
    RepoOption,
    RootOption,
    SplitName,
    ViewName,
)
from latentqa.terminal.printing import print_json, report, say

if TYPE_CHECKING:
    from generators.exchange.config import ImportConfig
    from pipelines.artifacts.data_tables import Tables

app = typer.Typer(
    help="Import, show, count and export rows.", no_args_is_help=True, add_completion=False
)

ImportFormat = Literal["latentqa", "conversations"]
ExportFormat = Literal["latentqa", "jsonl", "datasets", "parquet"]
"""Formats of generators/exchange; a test compares them."""

Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="An artifact, an experiment, a folder of Parquet that `latentqa data` wrote, or a "
        "conversations file.",
    ),
]
IMPORT_RECORD = "import.json"
_TERMINAL_ROWS, _PAGE_ROWS = 5, 500


@app.command("import")
def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Folder with qa.json and any of control.json, stimulus.json, "
            "stimulus_completion.json, system.json; with --format conversations a "
            ".jsonl file or a folder of them.",
        ),
    ],
    format_: Annotated[
        ImportFormat,
        typer.Option(
            "--format", help="LatentQA's JSON files, or your own conversations (docs/data.md)."
        ),
    ] = "latentqa",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="New folder for the tables.",
            show_default="./NAME-imported, after PATH",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Setting of the import, such as limit=100 or splits.seed=1; repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert published files or your own conversations to Parquet tables, outside any experiment.

    An experiment with a `data` section imports by itself; use this command to inspect the rows
    first.
    """
    config = _import_config(set_ or [])
    digests, to_conversations, to_questions = _importer(format_)
    folder = folder.expanduser()
    target = out or Path(f"{folder.resolve().name.removesuffix('.jsonl')}-imported")
    target = target.expanduser()
    layout = {"rows": config.rows} if format_ == "conversations" else {}
    sources = digests(folder, **layout)
    with new_folder(target) as aside:
        conversations = to_conversations(folder, aside / "conversations", config=config)
        questions = to_questions(folder, aside / "conversations", aside / "questions", **layout)
        record = {
            "config": config.model_dump(mode="json"),
            "sources": sources,
            "conversations": conversations,
            "questions": questions,
        }
        write_json(aside / IMPORT_RECORD, record)
    if as_json:
        print_json({"out": str(target), **record})
    else:
        from latentqa.terminal.data_view import print_import

        print_import(target, conversations, questions)


@app.command("show")
def show(
    ref: Ref,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Rows of this kind, such as persona.")
    ] = None,
    view: Annotated[ViewName | None, typer.Option(help="Rows of this view.")] = None,
    split: Annotated[SplitName | None, typer.Option(help="Rows of this split.")] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Rows whose label fits, such as 'persona-job-*'."),
    ] = None,
    flag: Annotated[
        str | None,
        typer.Option(metavar="FLAG", help="Rows with this flag, their own or a question's."),
    ] = None,
    category: Annotated[
        str | None, typer.Option(metavar="CATEGORY", help="Rows of this category.")
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", help="Rows with a question of this type, such as description."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most rows shown.", show_default="5, with --out 500"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write the rows to a self-contained HTML page instead."
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Show rows: messages coloured by segment, with questions and answers below."""
    from generators.exchange.exporting import to_records
    from pipelines.artifacts.data_tables import load_tables

    tables = load_tables(root, ref)
    wanted = {
        "kind": kind, "view": view, "split": split, "category": category, "label": label,
        "type": type_, "flag": flag,
    }  # fmt: skip
    records = _select(to_records(tables.conversations, tables.questions), wanted)
    shown = records[: limit or (_TERMINAL_ROWS if out is None else _PAGE_ROWS)]
    if out is not None:
        from pipelines.reports.rows.page import rows_page

        write_bytes(out.expanduser(), rows_page(shown, title=ref, total=len(records)).encode())
    if as_json:
        page = None if out is None else str(out)
        counts = {"total": len(records), "shown": len(shown)}
        print_json({"ref": ref, "out": page, **counts, "rows": shown})
    elif out is not None:
        say(f"{out}: {len(shown)} of {len(records)} rows")
    else:
        from latentqa.terminal.data_view import print_rows

        print_rows(shown, total=len(records))


@app.command("stats")
def stats(ref: Ref, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Count rows by kind, view, split and category; show lengths, dropped rows, leaks, quality."""
    from generators.quality.describe import describe_dataset
    from pipelines.artifacts.data_tables import load_tables

    tables = load_tables(root, ref)
    numbers = describe_dataset(tables.conversations, tables.questions, tables.dropped)
    if as_json:
        print_json({"ref": ref, **numbers, "quality": tables.quality and tables.quality.to_json()})
    else:
        from latentqa.terminal.data_view import print_measured, print_stats

        print_stats(numbers)
        if tables.quality is not None:
            print_measured(tables.quality)


@app.command("export")
def export(
    ref: Ref,
    out: Annotated[
        Path, typer.Option("--out", metavar="PATH", help="New folder; for jsonl a new file.")
    ],
    format_: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="LatentQA's JSON files, JSON Lines, a `datasets` folder, or Parquet shards with a "
            "card.",
        ),
    ],
    license_: Annotated[
        str | None,
        typer.Option(
            "--license", metavar="LICENCE", help="Licence of the whole dataset, for the card."
        ),
    ] = None,
    source_license: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=LICENCE",
            help="Licence of one source, for the card, such as 'import qa.json=apache-2.0'.",
        ),
    ] = None,
    repo: RepoOption = None,
    private: PrivateOption = False,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Write rows in another format, or publish them.

    `datasets.load_dataset` reads the Parquet shards from the folder or the hub.
    """
    from pipelines.artifacts.data_tables import load_tables

    if format_ != "parquet" and (license_ or source_license or repo):
        raise ConfigError(
            f"--format {format_}: got --license, --source-license or --repo, which only "
            "--format parquet supports."
        )
    tables = load_tables(root, ref)
    out = out.expanduser()

    def publish(folder: Path) -> str | None:
        from pipelines.reports.publish.hub import push_folder

        message = "Data set written by latentqa"
        return repo and push_folder(folder, repo, kind="dataset", private=private, message=message)

    address = _export(tables, format_, out, license_, _licences(source_license or []), publish)
    counts = {"conversations": len(tables.conversations), "questions": len(tables.questions)}
    report(
        as_json,
        {"out": str(out), "format": format_, **counts, "repo": address},
        f"{out}: {counts['conversations']} conversations, {counts['questions']} questions "
        f"as {format_}",
        *([address] if address else []),
    )


def _importer(
    format_: ImportFormat,
) -> tuple[
    Callable[..., dict[str, str]], Callable[..., dict[str, Any]], Callable[..., dict[str, Any]]
]:
    """Choose the functions that read a format: digests, conversations, questions."""
    from generators.exchange import conversation_files as own
    from generators.exchange import importing
    from generators.exchange.row_entries import own_digests

    if format_ == "latentqa":
        return importing.source_digests, importing.import_conversations, importing.import_questions
    return own_digests, own.import_own_conversations, own.import_own_questions


def _licences(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        source, equals, licence = one.rpartition("=")
        if not equals or not source or not licence:
            raise ConfigError(f"--source-license {one}: expected SOURCE=LICENCE.")
        found[source.strip()] = licence.strip()
    return found


def _export(
    tables: Tables,
    format_: str,
    out: Path,
    licence: str | None,
    source_licences: dict[str, str],
    publish: Callable[[Path], str | None],
) -> str | None:
    """Write rows; Parquet shards are published before they stand at `out`.

    Returns:
        The address of the repository; None without one.
    """
    from generators.exchange.exporting import write_datasets, write_jsonl, write_latentqa
    from generators.exchange.parquet import write_parquet

    if format_ == "latentqa":
        if not tables.questions:
            raise DataError(
                f"{out}: found no questions for these conversations, but LatentQA's format "
                "needs them. Name the experiment or the questions artifact, or export as "
                "jsonl."
            )
        with new_folder(out) as aside:
            write_latentqa(aside, tables.conversations, tables.questions, tables.dropped)
    elif format_ == "jsonl":
        if out.exists():
            raise ConfigError(f"{out}: already exists; name a new file.")
        write_jsonl(out, tables.conversations, tables.questions)
    elif format_ == "parquet":
        with new_folder(out) as aside:
            write_parquet(
                aside,
                tables.conversations,
                tables.questions,
                tables.dropped,
                name=out.resolve().name,
                licence=licence,
                source_licences=source_licences,
                quality=tables.quality,
            )
            return publish(aside)
    else:
        import datasets

        datasets.disable_progress_bars()
        with new_folder(out) as aside:
            write_datasets(aside, tables.conversations, tables.questions)
    return None


def _import_config(overrides: list[str]) -> ImportConfig:
    """Read the import's settings from `FIELD=VALUE`, each value in YAML."""
    from pydantic import BaseModel, ValidationError

    from core.documents.yaml_values import parse_yaml
    from generators.exchange.config import ImportConfig, RowsConfig
    from generators.splits import SplitConfig

    sections: dict[str, type[BaseModel]] = {"splits": SplitConfig, "rows": RowsConfig}
    fields = ["limit", *(f"{s}.{name}" for s, own in sections.items() for name in own.model_fields)]
    tree: dict[str, Any] = {section: {} for section in sections}
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip().removeprefix("data.")
        if not equals or name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"--set {override}: expected FIELD=VALUE with one of {', '.join(fields)}.{hint}"
            )
        section, _, field = name.rpartition(".")
        (tree[section] if section else tree)[field] = parse_yaml(text, f"--set {override}")
    try:
        return ImportConfig.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        message = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
        raise ConfigError(f"--set {where}: got {problem['input']!r}: {message}.") from error


def _select(records: list[dict[str, Any]], wanted: dict[str, str | None]) -> list[dict[str, Any]]:
    """Select the records that fit every filter; a value that no record has is an error."""
    from pipelines.reports.rows.page import filter_values

    kept = records
    for name, value in wanted.items():
        if value is None:
            continue
        if not any(
            fnmatchcase(found, value) for row in records for found in filter_values(row, name)
        ):
            there = sorted({found for row in records for found in filter_values(row, name)})
            shown = ", ".join(there[:8]) + (f", … ({len(there)})" if len(there) > 8 else "")
            raise ConfigError(f"--{name} {value}: no row matches; the rows have {shown or 'none'}.")
        kept = [row for row in kept if any(fnmatchcase(f, value) for f in filter_values(row, name))]
    return kept
