"""Rows from files of any layout become rows of the conversations table."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.documents.strict_json import json_type_name
from core.errors import DataError
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    write_conversations,
    write_dropped,
    write_questions,
)
from core.records.tables import (
    KIND_NAMES,
    SPLITS,
    VIEWS,
    Conversation,
    Dropped,
    Message,
    Question,
    Split,
    View,
    control_id,
    example_id,
)
from generators.exchange.config import ImportConfig
from generators.splits import SplitMember, grouped_splits, take_evenly

_LOG = logging.getLogger(__name__)
QA_LABEL = "qa_label"
"""Key of an imported row's provenance: the label of its questions, where that is not the row's."""


class MalformedRow(Exception):
    """A row that breaks a rule: the rule's name, and in words what is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def drop(self, where: str, raw: str) -> Dropped:
        """Record the row, which stands at `where`, as dropped."""
        return Dropped(reason=self.reason, where=where, detail=self.detail, raw=raw)


def read_text(value: Mapping[str, Any], name: str, where: str = "") -> str:
    """Return the text of a field.

    Raises:
        MalformedRow: it is missing, empty, or no text.
    """
    at = f"{where}{name!r}"
    if name not in value:
        raise MalformedRow("missing_field", f"{where}no field {name!r}; found {sorted(value)}")
    if not isinstance(value[name], str):
        got = json_type_name(value[name])
        raise MalformedRow("not_a_string", f"{at} is {got}; expected a string")
    if not value[name].strip():
        raise MalformedRow("empty_field", f"{at} is empty; expected text")
    return str(value[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRow:
    """A well-formed row of a file.

    Attributes:
        file: name of the file.
        position: its place in the file.
        where: both, in words.
        extra: the fields that the layout does not know.
        raw: the row as JSON.
        named_control: what the row is of, where that is not its first control message alone.
        split: the split that the row names; None where it is drawn.
        qa_label: the label under which its questions stand, where that is not its own.
    """

    view: View
    file: str
    position: int
    where: str
    label: str
    kind: str
    category: str
    messages: tuple[Message, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    raw: str
    named_control: str | None = None
    split: Split | None = None
    qa_label: str | None = None

    @property
    def control(self) -> str:
        """What makes two rows rows of one control: its text, or the name that the row gives it."""
        if self.named_control is not None:
            return self.named_control
        return next(m.content for m in self.messages if m.segment == "control")

    def drop(self, reason: str, detail: str) -> Dropped:
        """Record this row as dropped."""
        return Dropped(reason=reason, where=self.where, detail=detail, raw=self.raw)


def drop_repeated(rows: Sequence[SourceRow]) -> tuple[list[SourceRow], list[Dropped]]:
    """Keep the first of all rows with the same label and messages; return the others as dropped."""
    first: dict[str, SourceRow] = {}
    dropped: list[Dropped] = []
    for row in rows:
        kept = first.setdefault(example_id(row.label, row.view, row.messages), row)
        if kept is not row:
            dropped.append(
                row.drop("duplicate_row", f"same label and messages as row {kept.position}")
            )
    return list(first.values()), dropped


def split_conversations(
    rows: Sequence[SourceRow], config: ImportConfig, completions_of: str
) -> tuple[list[Conversation], list[Dropped]]:
    """Build conversations with groups and splits from `rows`; drop those beyond `config.limit`.

    Args:
        rows: distinct rows.
        config: splits and limit.
        completions_of: who wrote the completions.

    Raises:
        ConfigError: a held-out category is none of the data's.
    """
    members = [
        SplitMember(
            label=row.label,
            control=row.control,
            kind=row.kind,
            category=row.category,
            split=row.split,
        )
        for row in rows
    ]
    grouped = grouped_splits(members, config.splits)
    _warn_of_shared_groups(rows, grouped)
    made = [
        Conversation(
            example_id=example_id(row.label, row.view, row.messages),
            control_id=control_id(row.kind, row.control),
            group_id=group,
            kind=row.kind,
            category=row.category,
            label=row.label,
            view=row.view,
            split=split,
            source="import",
            messages=row.messages,
            completion_origin=completions_of if row.view == "stimulus_completion" else None,
            provenance={"file": row.file, "position": row.position}
            | ({"extra": row.extra} if row.extra else {})
            | ({QA_LABEL: row.qa_label} if row.qa_label not in (None, row.label) else {}),
        )
        for row, (group, split) in zip(rows, grouped, strict=True)
    ]
    return (made, []) if config.limit is None else _limited(rows, made, config.limit)


def _warn_of_shared_groups(rows: Sequence[SourceRow], grouped: Sequence[tuple[str, Split]]) -> None:
    """Warn where the splits that rows name put a group into training and beside it."""
    splits: dict[str, set[Split]] = {}
    for group, split in grouped:
        splits.setdefault(group, set()).add(split)
    shared = {one for one, own in splits.items() if "train" in own and own - {"train", "test_seen"}}
    if shared:
        first = next(row for row, own in zip(rows, grouped, strict=True) if own[0] in shared)
        _LOG.warning(
            "%d of %d groups have rows in train and in a held-out split, as the rows say "
            "themselves (first: %s, label %r): what is measured there, training has seen. Give "
            "rows of one label or control one split, or call the split test_seen.",
            len(shared), len(splits), first.where, first.label,
        )  # fmt: skip


def conversation_counts(rows: Sequence[Conversation], dropped: Sequence[Dropped]) -> dict[str, Any]:
    """Count controls and conversations by view, kind and split, and dropped rows by reason."""
    controls = {split: {r.control_id for r in rows if r.split == split} for split in SPLITS}
    views, kinds = Counter(r.view for r in rows), Counter(r.kind for r in rows)
    splits = Counter(r.split for r in rows)
    return {
        "controls": len({r.control_id for r in rows}),
        "examples": len(rows),
        "dropped": count_by_reason(dropped),
        "by_view": {view: views[view] for view in VIEWS if views[view]},
        "by_kind": {kind: kinds[kind] for kind in _ordered(kinds)},
        "by_split": {
            split: {"controls": len(controls[split]), "examples": splits[split]}
            for split in SPLITS
            if splits[split]
        },
    }


def write_question_rows(
    questions: Sequence[Question], dropped: Sequence[Dropped], out: Path, *, labels: int
) -> dict[str, Any]:
    """Write questions, and what was dropped, to folder `out`; count both, and `labels`."""
    write_questions(out / QUESTIONS_FILE, questions)
    write_dropped(out / DROPPED_FILE, dropped)
    return {"questions": len(questions), "labels": labels, "dropped": count_by_reason(dropped)}


def count_by_reason(dropped: Sequence[Dropped]) -> dict[str, int]:
    """Count the rows dropped under each rule."""
    return dict(sorted(Counter(row.reason for row in dropped).items()))


def _limited(
    rows: Sequence[SourceRow], conversations: Sequence[Conversation], limit: int
) -> tuple[list[Conversation], list[Dropped]]:
    taken: set[int] = set()
    kinds = _ordered({row.kind for row in conversations})
    for view in VIEWS:
        places = [i for i, row in enumerate(conversations) if row.view == view]
        # kinds outside, splits inside: the first turns cover every split
        places.sort(
            key=lambda i: (
                kinds.index(conversations[i].kind),
                SPLITS.index(conversations[i].split),
                rows[i].position,
            )
        )
        strata = [(conversations[i].kind, conversations[i].split) for i in places]
        taken.update(places[p] for p in take_evenly(strata, limit))
    dropped = [
        row.drop("over_limit", f"more than {limit} rows of view {row.view!r}")
        for i, row in enumerate(rows)
        if i not in taken
    ]
    return [conversations[i] for i in sorted(taken)], dropped


def _ordered(kinds: set[str] | Counter[str]) -> list[str]:
    """Order the kinds: those of this project first, then others by name."""
    return [*(kind for kind in KIND_NAMES if kind in kinds), *sorted(set(kinds) - set(KIND_NAMES))]


def write_conversation_rows(
    path: Path,
    rows: Sequence[SourceRow],
    dropped: Sequence[Dropped],
    out: Path,
    *,
    config: ImportConfig,
    completions_of: str,
) -> dict[str, Any]:
    """Write the conversations of `rows`, each once, and all that was dropped, to folder `out`.

    Args:
        path: where the rows are from, for the error.
        dropped: what was dropped on the way to `rows`.

    Returns:
        `conversation_counts`.

    Raises:
        DataError: no row is left.
        ConfigError: a held-out category is none of the data's.
    """
    kept, repeated = drop_repeated(rows)
    gone = [*dropped, *repeated]
    if not kept:
        first = f"; first: {gone[0].where}, {gone[0].detail}" if gone else ""
        rows_left = f"no row is left of {len(gone)}" if gone else "holds no row"
        raise DataError(f"{path}: {rows_left}{first}.")
    conversations, over = split_conversations(kept, config, completions_of)
    gone += over
    write_conversations(out / CONVERSATIONS_FILE, conversations)
    write_dropped(out / DROPPED_FILE, gone)
    return conversation_counts(conversations, gone)
