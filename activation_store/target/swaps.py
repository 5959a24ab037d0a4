"""Swapped conversations: a row's own visible text under another control.

The target runs on the row's own stimulus (and completion, as it was written) behind another control
of the same kind. A decoder to which the control is hidden then sees the same tokens; only what the
hidden control left in their activations differs. No other comparison isolates that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from activation_store.tokens.tokens import COMPLETION_IDS, Tokens, tokenize_row
from core.documents.canonical import digest
from core.errors import DataError
from core.records.tables import Conversation, Message, Split, example_id

SWAPPED_FROM = "swapped_from"
"""Name in a swapped conversation's provenance of the example whose visible text it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """A row and the same visible text under another control.

    Attributes:
        row: the row itself.
        donor: the row whose control is taken.
        swapped: the donor's control with the row's visible text.
    """

    row: Conversation
    donor: Conversation
    swapped: Conversation


def make_swaps(
    rows: Sequence[Conversation], control_tokens: Mapping[str, int], splits: Iterable[Split]
) -> list[Swap]:
    """Pair each row of a masked view with another control of its kind, split and view.

    The other control is of another group and label; it is the one with the nearest number of
    hidden tokens, equals drawn by hash, so that the visible tokens keep their positions as nearly
    as can be. The result depends on `rows` as a set only.

    Args:
        rows: all rows that the target can read.
        control_tokens: leading tokens of each row that masking hides, by example id.
        splits: splits whose rows are swapped.

    Returns:
        A swap for each row that has another control to swap with and whose control stands wholly
        before its visible text.
    """
    judged = frozenset(splits)
    alike: dict[tuple[str, str, str], dict[str, Conversation]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: row.example_id):
        if is_swappable(row, judged) and _visible_from(row) is not None:
            # one row a control and acknowledgement is enough to take the control from
            alike[row.kind, row.split, row.view].setdefault(row.control_id, row)
    found = []
    for row in rows:
        if _visible_from(row) is None:
            continue
        donors = [
            donor
            for donor in alike.get((row.kind, row.split, row.view), {}).values()
            if donor.control_id != row.control_id
            and donor.group_id != row.group_id
            and _hidden(donor) != _hidden(row)
        ]
        if not donors:
            continue
        own = control_tokens[row.example_id]
        away = {d.example_id: abs(control_tokens[d.example_id] - own) for d in donors}
        least = min(away.values())
        nearest = [donor for donor in donors if away[donor.example_id] == least]
        # drawn for a row's control, so that rows that share it share its swap
        donor = min(nearest, key=lambda d: digest(["swap", row.control_id, d.control_id]))
        found.append(Swap(row=row, donor=donor, swapped=_swap(row, donor)))
    return found


def _visible_from(row: Conversation) -> int | None:
    """Find the first visible message; None where the control does not stand wholly before it."""
    segments = [message.segment for message in row.messages]
    first = next((i for i, segment in enumerate(segments) if segment != "control"), None)
    return first if first and "control" not in segments[first:] else None


def _hidden(row: Conversation) -> tuple[Message, ...]:
    return row.messages[: _visible_from(row)]


def _swap(row: Conversation, donor: Conversation) -> Conversation:
    messages = (
        *donor.messages[: _visible_from(donor)],
        *row.messages[_visible_from(row) :],
    )
    return replace(
        row,
        # as the generator names it: in a crossed design the same conversation is a row already
        example_id=example_id(donor.label, row.view, messages),
        control_id=donor.control_id,
        group_id=donor.group_id,
        category=donor.category,
        label=donor.label,
        messages=messages,
        flags=(),
        provenance={SWAPPED_FROM: row.example_id} | _written_by_target(row),
    )


def without_control(row: Conversation) -> Conversation | None:
    """Return the row's visible text without its control; None where nothing is hidden.

    Rows with one visible text have one such conversation. Its view keeps it out of swaps.
    """
    first = _visible_from(row) if row.view != "control" else None
    if first is None:
        return None
    messages = row.messages[first:]
    return replace(
        row,
        example_id=example_id("without control", row.view, messages),
        view="control",
        messages=messages,
        flags=(),
        provenance=_written_by_target(row),
    )


def _written_by_target(row: Conversation) -> dict[str, Any]:
    """Return the token ids of a completion that the target wrote, as provenance."""
    ids = row.provenance.get(COMPLETION_IDS)
    return {COMPLETION_IDS: ids} if ids else {}


def is_swappable(row: Conversation, splits: Collection[Split]) -> bool:
    """Tell whether a row can take part in a swap of controls within these splits."""
    return row.view != "control" and row.split in splits


def tokenize_swapped(
    rows: Sequence[Conversation], tokens: Mapping[str, Tokens], tokenizer: Any, *, longest: int
) -> Iterator[tuple[str, Tokens]]:
    """Tokenize the swapped conversation of each row.

    One whose visible text becomes other tokens, which the template refuses, or which is too long
    is left out: its row is then without a swap, and evaluation counts it.

    Args:
        rows: rows to swap among.
        tokens: their tokens, by example id.
        tokenizer: the target's.
        longest: most tokens of a conversation.

    Returns:
        Example id and tokens; in a crossed design some are rows of the table already.
    """
    control_tokens = {row.example_id: tokens[row.example_id].withheld for row in rows}
    for swap in make_swaps(rows, control_tokens, {row.split for row in rows}):
        try:
            found = tokenize_row(tokenizer, swap.swapped)
        except DataError:
            continue
        own = tokens[swap.row.example_id]
        same = np.array_equal(found.ids[found.withheld :], own.ids[own.withheld :])
        if same and len(found.ids) <= longest:
            yield swap.swapped.example_id, found
