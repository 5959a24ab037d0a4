"""Files of relations: subjects with their objects, and texts in which the subjects stand.

| column (TSV) or key (JSON list) | what it holds |
|---|---|
| `subject`, `object` | the two names of a fact |
| `prompt_source` or `source` | a text in which the subject stands |
| `prompt_target` or `question` | the relation, with the word `x` where the subject belongs |
| `aliases` | other names of the object, `|` between them (in JSON a list); may be absent |

Several rows of a subject are several texts. Rows that cannot be used are dropped by a named rule.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError
from evaluators.tasks.answers import fold, names_any

SUFFIXES = (".tsv", ".json")
_SUBJECT_PLACE = re.compile(r"\bx\b")
_COLUMNS = {
    "subject": ("subject",),
    "object": ("object",),
    "source": ("prompt_source", "source"),
    "relation": ("prompt_target", "question"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A text in which a subject stands.

    Attributes:
        text: the text.
        stop: the character after the subject's last.
    """

    text: str
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A subject, and all that a file says of it.

    Attributes:
        name: of the subject.
        objects: names that answer the question, the file's first object first.
        relation: the relation's text up to the subject's place, and from there on.
        sources: texts in which it stands, in the file's order.
    """

    name: str
    objects: tuple[str, ...]
    relation: tuple[str, str]
    sources: tuple[Source, ...]

    @property
    def key(self) -> str:
        """The name without what writers do differently: case, accents, white space."""
        return " ".join(fold(self.name))

    def fill(self, name: str) -> str:
        """Write the relation's text about `name`."""
        before, after = self.relation
        return f"{before}{name}{after}"

    @property
    def stem(self) -> str:
        """The relation's text without its subject."""
        return " ".join(self.fill(" ").split())


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """A file of relations.

    Attributes:
        name: of the task.
        subjects: that have a usable text, in the file's order.
        dropped: rows that were left out, by rule.
    """

    name: str
    subjects: tuple[Subject, ...]
    dropped: dict[str, int]


def find_relation_files(paths: Iterable[str]) -> dict[str, Path]:
    """Find the files of relations by the name of their task, in the order of `paths`.

    Raises:
        DataError: a path leads to no such file, or two files have one name.
    """
    found: dict[str, Path] = {}
    for named in paths:
        path = Path(named).expanduser()
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files or not all(file.is_file() and file.suffix in SUFFIXES for file in files):
            raise DataError(
                f"tasks.relations: {named} is no file of relations, and no folder with one; "
                "expected a .tsv or .json file."
            )
        for file in files:
            if file.stem in found:
                raise DataError(
                    f"tasks.relations: {found[file.stem]} and {file} have one name; rename one."
                )
            found[file.stem] = file
    return found


def read_relation(path: Path) -> Relation:
    """Read a file of relations.

    Raises:
        DataError: it cannot be read, lacks a column, or has no usable row.
    """
    rows = list(_named_rows(path))
    dropped: Counter[str] = Counter()
    objects: dict[str, dict[str, None]] = {}
    for row in rows:
        own = objects.setdefault(" ".join(fold(row["subject"])), {})
        own |= dict.fromkeys([row["object"], *row["aliases"]])
    subjects: dict[str, Subject] = {}
    for row in rows:
        key = " ".join(fold(row["subject"]))
        names = tuple(objects[key])
        source = _usable_source(row, names, path.stem)
        if isinstance(source, str):
            dropped[source] += 1
            continue
        earlier = subjects.get(key)
        if earlier is not None and source.text in [known.text for known in earlier.sources]:
            dropped["source text twice"] += 1
            continue
        subjects[key] = Subject(
            name=row["subject"] if earlier is None else earlier.name,
            objects=names,
            relation=_relation_text(row["relation"], path),
            sources=(*(() if earlier is None else earlier.sources), source),
        )
    if not subjects:
        raise DataError(f"{path}: none of its {len(rows)} rows can be used ({dict(dropped)}).")
    return Relation(name=path.stem, subjects=tuple(subjects.values()), dropped=dict(dropped))


def _usable_source(row: Mapping[str, Any], names: Sequence[str], task: str) -> Source | str:
    """Return the row's text, or the rule by which the row is dropped."""
    text, subject = row["source"], row["subject"]
    if not text.strip():
        return "no source text"
    if "\n" in text:
        return "line break in source text"
    if "constellation" in task and "service" in text.lower():
        return "service in source text"  # satellite services are named for stars
    found = [m.end() for m in re.finditer(re.escape(subject) + r"(?!\w)", text)]
    if not found:
        return "subject not in source text"
    before = text[: found[0] - len(subject)]
    if names_any(before, names):
        return "object before the subject"
    return Source(text=text, stop=found[0])


def _relation_text(text: str, path: Path) -> tuple[str, str]:
    places = list(_SUBJECT_PLACE.finditer(text))
    if not places:
        raise DataError(f"{path}: {text!r} has no word x, expected one where the subject belongs.")
    return text[: places[-1].start()], text[places[-1].end() :]


def _named_rows(path: Path) -> Iterable[dict[str, Any]]:
    """Yield each row under our names of its columns; rows without subject or object are skipped."""
    for number, row in enumerate(_raw_rows(path), 1):
        named: dict[str, Any] = {}
        for name, columns in _COLUMNS.items():
            column = next((one for one in columns if one in row), None)
            if column is None:
                raise DataError(
                    f"{path}: row {number} has no {' or '.join(columns)}; it has "
                    f"{', '.join(map(str, row))}."
                )
            named[name] = str(row[column] or "")
        aliases = row.get("aliases") or ()
        named["aliases"] = aliases.split("|") if isinstance(aliases, str) else list(aliases)
        named["aliases"] = [str(alias).strip() for alias in named["aliases"] if str(alias).strip()]
        named["subject"], named["object"] = named["subject"].strip(), named["object"].strip()
        if named["subject"] and named["object"]:
            yield named


def _raw_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".tsv":
            return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
        rows = json.loads(text)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: cannot be read as relations ({error}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a JSON list of objects with subject and object.")
    return rows
