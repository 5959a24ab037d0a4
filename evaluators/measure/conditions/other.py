"""`other`: the activations of another control of the same kind and split, nearest in length."""

from __future__ import annotations

from collections.abc import Sequence

from core.documents.canonical import digest
from decoder.visible_tokens import ActivationSource
from evaluators.measure.conditions.base import Condition
from trainers.data.rows import Row, count_visible_tokens

OTHER = Condition("other", lambda row, context: context.read(context.partners[row.example_id]))


def pair_with_other_controls(
    rows: Sequence[Row],
    pool: Sequence[Row],
    store: ActivationSource,
    *,
    masking: bool,
    seed: int,
) -> dict[str, Row]:
    """Pair each row with one of another control, of the same kind and nearest visible length.

    Ties are broken by seed. Rows of one group share labels or control texts, so a partner is of
    another group.

    Args:
        rows: the rows that need a partner.
        pool: all rows of their split and view.
        store: knows their lengths.
        masking: whether the control's own tokens are withheld.
        seed: of the ties.

    Returns:
        Partner by example id; a row that has none is absent.
    """
    lengths = {
        row.example_id: count_visible_tokens(store, row, masking=masking) for row in (*pool, *rows)
    }
    out = {}
    for row in rows:
        own = row.conversation
        away = {
            other.example_id: abs(lengths[other.example_id] - lengths[row.example_id])
            for other in pool
            if other.conversation.kind == own.kind
            and other.conversation.group_id != own.group_id
            and other.conversation.control_id != own.control_id
        }
        if away:
            least = min(away.values())
            nearest = [other for other in pool if away.get(other.example_id) == least]
            out[row.example_id] = min(
                nearest, key=lambda other: digest([seed, row.example_id, other.example_id])
            )
    return out
