"""Files of relations: subjects with their objects, and natural texts in which the subjects stand.

| column (TSV, CSV) or key (JSON list, JSON Lines) | what it holds |
|---|---|
| `subject`, `object` | the two names of a fact |
| `prompt_source` or `source` | a text in which the subject stands |
| `prompt_target` or `question` | the relation, with `x`, `{}` or the subject where that belongs |
| `aliases` | other names of the object, `|` between them, or a list; may be absent |

Other common names of columns are known too, such as `head` and `tail`. Several rows of a subject
are several texts. Rows that cannot be used are dropped by a named rule.

A YAML file says the same once, for subjects that share their texts:

```yaml
question: "The capital of x"
texts: ["A friend of mine has just come back from x"]
facts: {Paris: France, "Kyiv|Kiev": [Ukraine]}     # object, with its aliases: its subjects
```
"""

from __future__ import annotations

import ast
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import DataError
from generators.kinds.relation_yaml import YAML_SUFFIXES, yaml_rows
from generators.kinds.row_files import SUFFIXES as ROW_SUFFIXES
from generators.kinds.row_files import read_rows
from generators.kinds.sources import list_files, local_path
from generators.rules.naming import fold, names_any
from generators.rules.words import UNSPACED

SUFFIXES = (*ROW_SUFFIXES, *YAML_SUFFIXES)
_COLUMNS = {
    "subject": ("subject", "subj", "sub_label", "head", "entity"),
    "object": ("object", "obj", "obj_label", "tail", "target", "answer"),
    "source": ("prompt_source", "source", "text", "sentence", "context"),
    "question": ("prompt_target", "question", "template", "prompt", "relation"),
}
_ALIASES = ("aliases", "alias", "object_aliases", "obj_aliases")
_LETTER = rf"[^\W{UNSPACED.pattern[1:-1]}]"
"""A character of a word, in scripts with spaces between words: no border of a name is beside it."""
_WORD = re.compile(_LETTER)
_SUBJECT_PLACE = re.compile(rf"(?<!{_LETTER})x(?!{_LETTER})|\{{\w*\}}|\[X\]|%s")
_OBJECT_PLACE = re.compile(r"\s*\[Y\]\W*$")
"""The object's place in a template such as `[X] was born in [Y] .`, which the object follows."""
_LONGEST_TEXT = 4_000
"""Most characters of a text up to the end of its subject."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A subject, and all that a file says of it.

    Attributes:
        name: of the subject.
        objects: names that answer the question, the file's first object first.
        relation: the relation's text up to the subject's place, and from there on.
        texts: natural texts that end with the subject, in the file's order.
    """

    name: str
    objects: tuple[str, ...]
    relation: tuple[str, str]
    texts: tuple[str, ...]

    @property
    def key(self) -> str:
        """The name without what writers do differently: case, accents, white space."""
        return _key(self.name)

    @property
    def label(self) -> str:
        """The label of its rows of kind `relation`."""
        return f"relation-{self.key.replace(' ', '-')}"

    def fill(self, name: str) -> str:
        """Write the relation's text about `name`."""
        before, after = self.relation
        return f"{before}{name}{after}"

    def state(self, name: str) -> str:
        """Write the relation about `name` so that its object can follow."""
        text = self.fill(name)
        if text.rstrip().endswith("?"):
            return f"{text} Answer:"
        return text if self.relation[1].strip() else f"{text} is"

    @property
    def stem(self) -> str:
        """The relation's text without its subject, or with a pronoun where it needs one."""
        before, after = self.relation
        needed = not before.strip() or after.strip()
        return " ".join(self.fill("it" if needed else " ").split())

    @property
    def questions(self) -> tuple[str, ...]:
        """Forms in which a decoder is asked about an activation of the subject."""
        return self.stem, f'Complete the sentence with a name: "{self.state("…")}"'


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


def find_relation_files(paths: Iterable[str], field: str) -> dict[str, Path]:
    """Find the files of relations by the name of their task, in the order of `paths`.

    Args:
        paths: files, or folders of such; `packaged` for those of the package.
        field: of the config that names them, for errors.

    Raises:
        DataError: a path leads to no such file, or two files have one name.
    """
    found: dict[str, Path] = {}
    for named in paths:
        files = list_files(local_path(named), SUFFIXES)
        if not files:
            raise DataError(
                f"{field}: {named} is neither a file of relations nor a folder with one; "
                f"expected a file that ends in {', '.join(SUFFIXES)}."
            )
        for file in files:
            if file.stem in found:
                raise DataError(
                    f"{field}: {found[file.stem]} and {file} have one name; rename one."
                )
            found[file.stem] = file
    return found


def read_relation(path: Path) -> Relation:
    """Read a file of relations.

    An object is spelled as where the file has it first, whatever its case elsewhere.

    Raises:
        DataError: it cannot be read, lacks a column, or has no usable row.
    """
    rows = list(_named_rows(path))
    asked: dict[str, tuple[str, str]] = {}
    objects: dict[str, dict[str, None]] = {}
    spelled: dict[str, str] = {}
    for row in rows:
        key, relation = _key(row.subject), row.relation
        if row.subject and relation and asked.setdefault(key, relation) == relation:
            names = [spelled.setdefault(name.casefold(), name) for name in row.objects]
            objects.setdefault(key, {}).update(dict.fromkeys(names))
    dropped: Counter[str] = Counter()
    first: dict[str, _Row] = {}
    texts: dict[str, dict[str, None]] = {}
    for row in rows:
        key = _key(row.subject)
        rule = _why_dropped(row, tuple(objects.get(key, ())), path.stem)
        if rule is None and row.relation != asked[key]:
            rule = "another question about the subject"
        if rule is None and row.text in texts.get(key, ()):
            rule = "source text twice"
        if rule is not None:
            dropped[rule] += 1
            continue
        first.setdefault(key, row)
        texts.setdefault(key, {})[row.text] = None
    if not first:
        counted = ", ".join(f"{rule} {n}" for rule, n in dropped.most_common())
        raise DataError(
            f"{path}: none of its {len(rows)} rows can be used ({counted or 'it is empty'}); "
            "expected a subject, its object, a source text with the subject in it, and a question "
            "with x where the subject belongs."
        )
    return Relation(
        name=path.stem,
        subjects=tuple(
            Subject(
                name=row.subject,
                objects=tuple(objects[key]),
                relation=row.relation or ("", ""),
                texts=tuple(texts[key]),
            )
            for key, row in first.items()
        ),
        dropped=dict(dropped),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A row as the file has it."""

    subject: str
    objects: tuple[str, ...]
    source: str
    question: str

    @property
    def place(self) -> tuple[int, int] | None:
        """Where the subject stands in the source, first as it is spelled; None where it does not.

        A file's own position counts tokens of the tokenizer that made it, and is not read.
        """
        return _find_name(self.subject, self.source)

    @property
    def text(self) -> str:
        """The source up to the end of the subject; empty where that is not in it."""
        return self.source[: (self.place or (0, 0))[1]]

    @property
    def relation(self) -> tuple[str, str] | None:
        """The question around the subject's place; None where it has none."""
        places = list(_SUBJECT_PLACE.finditer(self.question))
        places = places or list(re.finditer(re.escape(self.subject), self.question))
        if not places:
            return None
        return self.question[: places[-1].start()], self.question[places[-1].end() :]


@lru_cache
def _find_name(name: str, text: str) -> tuple[int, int] | None:
    """Find a name as whole words, first with its exact spelling, then in any case."""
    # scripts without spaces have no border of words
    before, after = (not UNSPACED.match(end) for end in (name, name[-1:]))
    start = text.find(name)
    while start >= 0:  # no pattern for each name: compiling them took most of a file's time
        end = start + len(name)
        within = (before and start and _WORD.match(text[start - 1])) or (
            after and _WORD.match(text[end : end + 1])
        )
        if not within:
            return start, end
        start = text.find(name, start + 1)
    bounds = (f"(?<!{_LETTER})" if before else "", f"(?!{_LETTER})" if after else "")
    found = re.search(re.escape(name).join(bounds), text, re.IGNORECASE)
    return None if found is None else found.span()


def _why_dropped(row: _Row, names: Sequence[str], task: str) -> str | None:
    """Return the rule by which a row is dropped; None for a usable one."""
    if not row.subject or not row.objects:
        return "no subject or object"
    if names_any(row.subject, names):
        return "object in the subject's name"  # whoever repeats the subject names it
    if row.relation is None:
        return "no place for the subject in the question" if row.question else "no question"
    if not row.source.strip():
        return "no source text"
    if "\n" in row.source:
        return "line break in source text"
    if "constellation" in task and "service" in row.source.lower():
        return "service in source text"  # satellite services are named for stars
    if row.place is None:
        return "subject not in source text"
    if len(row.text) > _LONGEST_TEXT:
        return "source text too long"
    if names_any(row.source[: row.place[0]], names):
        return "object before the subject"
    return None


def _key(name: str) -> str:
    return " ".join(fold(name)) or name.casefold()


def _named_rows(path: Path) -> Iterator[_Row]:
    """Yield each row under our names of its columns."""
    in_yaml = path.suffix.lower() in YAML_SUFFIXES
    rows = yaml_rows(path, _SUBJECT_PLACE) if in_yaml else read_rows(path, _COLUMNS["subject"])
    if long := next((number for number, raw in enumerate(rows, 1) if raw.get(None)), None):
        raise DataError(f"{path}: row {long} has more cells than the head. Quote what has commas.")
    plain = [{str(n).strip().casefold(): value for n, value in raw.items()} for raw in rows]
    there = set().union(*plain)
    found: dict[str, str] = {}
    for name, columns in _COLUMNS.items():
        column = next((one for one in columns if one in there), None)
        if column is None and plain:
            has = ", ".join(map(str, rows[0])) or "nothing"
            raise DataError(
                f"{path}: row 1 has no {' or '.join(columns[:2])}; it has {has}. Name the column "
                "so."
            )
        found[name] = column or ""
    others = [name for name in _ALIASES if name in there]
    for row in plain:
        values = {name: row.get(column) for name, column in found.items()}
        names = _texts(values["object"])
        for column in others:
            names += _texts(row.get(column), "|")
        yield _Row(
            subject="".join(_texts(values["subject"])[:1]),
            objects=tuple(dict.fromkeys(name.strip() for name in names if name.strip())),
            source=_text(values["source"]),
            question=_OBJECT_PLACE.sub("", _text(values["question"]).strip()),
        )


def _texts(value: Any, separator: str | None = None) -> list[str]:
    """List the texts of a value: of a list each, also of one in a cell, of a text its parts."""
    if isinstance(value, list):
        return [_text(one).strip() for one in value]
    text = _text(value).strip()
    if text.startswith("[") and isinstance(found := _literal(text), list):
        return _texts(found)
    return text.split(separator) if separator is not None else [text]


def _literal(text: str) -> Any:
    """Read a cell in which a list was written, as JSON or as Python; None where it is no such."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, float):  # pandas writes NaN for none, and whole numbers beside it as 2.0
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return "" if value is None else unicodedata.normalize("NFC", str(value))
