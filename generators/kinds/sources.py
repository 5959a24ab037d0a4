"""Texts from files, folders and Hugging Face datasets are read as documents, in a fixed order.

Documents are read as a stream and as often as asked for; what cannot be one is reported, not
skipped. `datasets` is imported where a data set needs it and nowhere else.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.documents.canonical import digest
from core.documents.strict_json import load_json
from core.errors import DataError, first_line
from core.files import sha256_file
from core.records.tables import Dropped
from core.text.byte_order import as_utf8, begins_with_mark
from generators.kinds.config import TextSource

PACKAGED = "packaged"
"""Path in a config that stands for the packaged files of relations; a folder of that name is
`./packaged`."""
TEXT_ENDINGS = (".txt", ".md")
ENDINGS = (*TEXT_ENDINGS, ".jsonl", ".parquet")
_SAVED = ("dataset_dict.json", "state.json")  # what `Dataset.save_to_disk` leaves
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DATASET_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceText:
    """One text of a source, with where it comes from.

    Attributes:
        where: its place in the source, such as `news/a.jsonl[17]`, counted from 0.
    """

    where: str
    category: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedTexts:
    """A source that was found.

    Attributes:
        source: the source, as the config has it.
        identity: what is there: digests of local files, or a data set's id and commit.
        endings: of the files that are read.
    """

    source: TextSource
    identity: Mapping[str, str]
    endings: tuple[str, ...] = ENDINGS

    def files(self) -> list[Path]:
        """Return the local files, in order."""
        return _all_files(self.source, self.endings)

    def documents(self) -> Iterator[SourceText | Dropped]:
        """Yield the source's texts in order, and `Dropped` for entries without text.

        Raises:
            DataError: a file cannot be read, or has not the columns that the source names.
        """
        path = Path(_one_path(self.source)).expanduser()
        if "commit" in self.identity:
            yield from _rows(stream_from_hub(self.source, self.identity["commit"]), "", self.source)
        elif is_saved_dataset(path):
            (rows,) = load_saved(path, self.source.split).values()
            yield from _rows(rows, "", self.source)
        else:
            for file in self.files():
                yield from _file(file, path, self.source)


def local_path(name: str) -> Path:
    """Return the path that a config names; `packaged` is the folder of the packaged relations."""
    first, *rest = name.split("/")
    if first == PACKAGED:
        return Path(str(files("generators"))) / "seeds" / "relations" / "/".join(rest)
    return Path(name).expanduser()


def resolve_texts(source: TextSource, endings: tuple[str, ...] = ENDINGS) -> ResolvedTexts:
    """Locate `source` and compute the identity of its texts.

    Args:
        source: as the config has it.
        endings: of the files that are read; files with others than `ENDINGS` are read by the kind
            itself, and lie here.

    Raises:
        DataError: nothing that can be read is there.
    """
    if endings != ENDINGS:
        read = [[file.name, sha256_file(file)] for file in _all_files(source, endings)]
        return ResolvedTexts(source=source, identity={"files": digest(read)}, endings=endings)
    name = _one_path(source)
    path = Path(name).expanduser()
    if path.exists():
        if is_saved_dataset(path):
            saved = sorted(p for p in path.rglob("*") if p.is_file())
            digests = [[_name(p, path), sha256_file(p)] for p in saved]
        else:
            digests = [[*_told(p, path, source), sha256_file(p)] for p in _files(path, endings)]
        return ResolvedTexts(source=source, identity={"files": digest(digests)})
    if path.suffix.lower() in ENDINGS or not _DATASET_ID.fullmatch(name):
        raise DataError(f"{name}: no such file or folder; expected texts to cut rows from.")
    return ResolvedTexts(source=source, identity={"dataset": name, "commit": _commit(source, name)})


def _one_path(source: TextSource) -> str:
    """Return the source's only path.

    Raises:
        DataError: it has several, which only files of relations may have.
    """
    if len(source.paths) != 1:
        raise DataError(f"source.path: got {len(source.paths)} paths; expected one of texts.")
    return source.paths[0]


def _all_files(source: TextSource, endings: tuple[str, ...]) -> list[Path]:
    return [file for name in source.paths for file in _files(local_path(name), endings)]


def _commit(source: TextSource, name: str) -> str:
    if source.revision is not None and _COMMIT.fullmatch(source.revision):
        return source.revision
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(name, revision=source.revision).sha
    except Exception as error:  # whatever the hub's client raises, the way out is the same
        raise DataError(
            f"{name}: neither a file or folder here, nor a data set whose commit could be "
            f"looked up ({first_line(error)}). Correct the path, or give the commit's 40 "
            "hex digits as source.revision."
        ) from error
    return str(found)


def stream_from_hub(source: TextSource, commit: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset on the hub.

    Raises:
        DataError: it cannot be streamed.
    """
    from datasets import load_dataset

    try:
        yield from load_dataset(
            _one_path(source),
            source.subset,
            split=source.split,
            revision=commit,
            streaming=True,
        )
    except Exception as error:  # as above
        raise DataError(
            f"{_one_path(source)}: cannot be streamed ({first_line(error)})."
        ) from error


def load_saved(path: Path, split: str | None) -> dict[str | None, Iterable[dict[str, Any]]]:
    """Open what `datasets` saved: its splits by name, or the one `split`; None names no split.

    Raises:
        DataError: it cannot be read, or has no such split.
    """
    from datasets import DatasetDict, load_from_disk

    try:
        found: Any = load_from_disk(str(path))
    except Exception as error:  # files of other shapes end in whatever `datasets` meets in them
        raise DataError(f"{path}: cannot be read as a dataset ({first_line(error)}).") from error
    if not isinstance(found, DatasetDict):
        return {None: found}
    if split is not None and split not in found:
        raise DataError(
            f"{path}: has no split {split!r}; expected one of {', '.join(map(str, found))}."
        )
    return {str(name): rows for name, rows in found.items() if split in (None, name)}


def is_saved_dataset(path: Path) -> bool:
    """Tell whether `path` is a folder that `datasets` saved."""
    return any((path / name).is_file() for name in _SAVED)


def list_files(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """List the files with certain endings: `path` itself, or what lies below it, in order.

    What is hidden, as editors and other systems leave it, is no text of the user's.
    """
    if path.is_file():
        return [path] if path.suffix.lower() in endings else []
    found = [
        file
        for file in path.rglob("*")
        if file.is_file()
        and file.suffix.lower() in endings
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    return sorted(found, key=lambda file: _name(file, path))


def _files(path: Path, endings: tuple[str, ...]) -> list[Path]:
    found = list_files(path, endings)
    if not found:
        raise DataError(f"{path}: no text; expected files that end in {', '.join(endings)}.")
    return found


def _name(file: Path, source: Path) -> str:
    return readable_name(file.name if file == source else file.relative_to(source).as_posix())


def readable_name(name: str) -> str:
    """Return a file's name as UTF-8; bytes that are not are escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _told(file: Path, path: Path, source: TextSource) -> tuple[str, str]:
    """Return what a file's name decides of its documents: how it is read, and their category."""
    suffix = file.suffix.lower()
    ending = TEXT_ENDINGS[0] if suffix in TEXT_ENDINGS else suffix
    if ending == TEXT_ENDINGS[0] and begins_with_mark(file):
        ending += ", decoded"  # before, the mark was part of the text
    by_folder = source.category is None or suffix in TEXT_ENDINGS
    return ending, _folder(_name(file, path)) if by_folder else ""


def _file(file: Path, path: Path, source: TextSource) -> Iterator[SourceText | Dropped]:
    name = _name(file, path)
    suffix = file.suffix.lower()
    if suffix in TEXT_ENDINGS:
        try:
            with io.TextIOWrapper(io.BytesIO(as_utf8(file.read_bytes())), "utf-8") as lines:
                text = lines.read()
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not UTF-8 ({error}); convert it, or move it away.") from error
        yield SourceText(where=name, category=_folder(name), text=text)
    elif suffix == ".parquet":
        columns = [source.column, *([source.category] if source.category else [])]
        yield from _rows(read_parquet(file, columns), name, source)
    else:
        yield from _rows(_json_lines(file), name, source)


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, with some of its columns or with all.

    Raises:
        DataError: it cannot be read, or lacks one of `columns`.
    """
    try:
        with pq.ParquetFile(file) as table:
            if missing := sorted(set(columns or ()) - set(table.schema_arrow.names)):
                raise DataError(
                    f"{file}: no column {missing[0]!r}; found {table.schema_arrow.names}. "
                    "Name the right one as source.column or source.category."
                )
            names = table.schema_arrow.names
            if twice := [name for name in names if names.count(name) > 1]:
                raise DataError(f"{file}: two columns are called {twice[0]!r}. Rename one.")
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                yield from _values(batch, file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({first_line(error)}).") from error


def _values(batch: pa.RecordBatch, file: Path) -> list[dict[str, Any]]:
    """Return the rows of a batch.

    Raises:
        DataError: a column holds what Python cannot, such as a date beyond its calendar.
    """
    columns: dict[str, list[Any]] = {}
    for name in batch.schema.names:
        try:
            columns[name] = batch.column(name).to_pylist()
        except Exception as error:  # of many types, by the column's own
            raise DataError(
                f"{file}: the values of column {name!r} cannot be read ({first_line(error)}); "
                "leave it out, or write it as text."
            ) from error
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json_lines(file: Path) -> Iterator[Any]:
    with file.open("rb") as lines:
        for line in lines:
            try:
                yield load_json(line)
            except ValueError:
                yield line.decode(errors="replace")


def _rows(rows: Iterable[Any], name: str, source: TextSource) -> Iterator[SourceText | Dropped]:
    for number, row in enumerate(rows):
        where = f"{name}[{number}]"
        if fault := _fault(row, source):
            yield Dropped(reason="malformed", where=where, detail=fault, raw=str(row)[:200])
            continue
        category = str(row[source.category]) if source.category else _folder(name)
        yield SourceText(where=where, category=category, text=row[source.column])


def _fault(row: Any, source: TextSource) -> str | None:
    if not isinstance(row, dict):
        return "not a JSON object"
    text = row.get(source.column)
    if not isinstance(text, str):
        return f"no text in {source.column!r}; found {', '.join(map(str, row)) or 'nothing'}"
    if source.category and not isinstance(row.get(source.category), str | int):
        return f"no category in {source.category!r}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair"
    return None


def _folder(name: str) -> str:
    folder, slash, _ = name.partition("/")
    return folder if slash else "text"
