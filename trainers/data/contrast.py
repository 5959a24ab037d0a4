"""The contrastive term: an answer must be likelier given the row's own activations than `swapped`.

A row's swapped activations are those of its own visible text under another control. For a question
q whose answer that other control would change, with losses in nats per token,

    term(q) = softplus(loss given the row's own − loss given the swapped ones)

which is the cross-entropy of telling the two apart by the answer's likelihood. It leaves nothing
to visible text, which both have alike. Gradients go through both losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from activation_store.target.swaps import Swap, make_swaps
from core.errors import DataError
from core.records.tables import Conversation, Question
from decoder.visible_tokens import ActivationSource
from trainers.data.rows import Row


@dataclass(frozen=True, slots=True)
class Contrast:
    """The swapped activations that the contrastive term sets against a row's own.

    Attributes:
        swapped: example id of the same visible text under another control.
        told_apart: for each of the row's questions, whether the other control changes its answer.
    """

    swapped: str
    told_apart: tuple[bool, ...]


def find_stored_swaps(
    rows: Sequence[Conversation], store: ActivationSource, split: str, view: str
) -> dict[str, Swap]:
    """Find the swapped conversation of each row of a split and view.

    Args:
        rows: every conversation of the table, so that controls are paired as the dump paired them.
        store: source of activations.
        split: split of the rows.
        view: view of the rows.

    Returns:
        Swap by the row's example id; rows for which none was dumped, or one with other visible
        tokens, are absent.
    """
    wanted = [r for r in rows if r.split == split and r.view == view and r.example_id in store]
    places = {row.example_id: store.place(row.example_id) for row in wanted}
    control_tokens = {example: place.withheld for example, place in places.items()}
    found = {}
    for swap in make_swaps(wanted, control_tokens, [row.split for row in wanted]):
        row, swapped = swap.row.example_id, swap.swapped.example_id
        if swapped not in store:
            continue
        theirs, mine = store.place(swapped), places[row]
        visible = store.tokens(row)[mine.withheld :]
        if np.array_equal(store.tokens(swapped)[theirs.withheld :], visible):
            found[row] = swap
    return found


def find_contrasts(
    rows: Sequence[Row],
    pool: Sequence[Row],
    table: Sequence[Conversation],
    store: ActivationSource,
) -> dict[str, Contrast]:
    """Find what each training row is contrasted with, by example id.

    Args:
        rows: training rows, with the questions that are trained on.
        pool: all rows of their split, by whose answers it is known what other controls would
            change.
        table: every conversation of the table.
        store: source of activations.

    Raises:
        DataError: no row has swapped activations and a question that they change.
    """
    answers = _answers_by_control(pool)
    found = {}
    for split, view in dict.fromkeys((r.conversation.split, r.conversation.view) for r in rows):
        swaps = find_stored_swaps(table, store, split, view)
        for row in rows:
            swap = swaps.get(row.example_id)
            if swap is None:
                continue
            theirs = answers[swap.donor.control_id]
            apart = tuple(_is_changed(question, theirs) for question in row.questions)
            if any(apart):
                found[row.example_id] = Contrast(swap.swapped.example_id, apart)
    if not found:
        raise DataError(
            "train.contrastive: no training row has swapped activations with another answer. Add "
            "`train` to dump.swapped (the default has the judged splits alone), and train on a "
            "view that hides the control."
        )
    return found


def add_contrast(
    losses_Q: torch.Tensor, contrasted_P: torch.Tensor | None, weight: float
) -> torch.Tensor:
    """Sum the losses of a micro-batch's questions and `weight` times their contrastive terms.

    Args:
        losses_Q: nats per token; the last P are those of questions given swapped activations, which
            count in the term alone.
        contrasted_P: of each of them the same question given the row's own; None for no term.
        weight: of the term.
    """
    if contrasted_P is None:
        return losses_Q.sum()
    own_Q, swapped_P = losses_Q[: -len(contrasted_P)], losses_Q[-len(contrasted_P) :]
    return own_Q.sum() + weight * F.softplus(own_Q[contrasted_P] - swapped_P).sum()


def _answers_by_control(rows: Sequence[Row]) -> Mapping[str, Mapping[str, set[str]]]:
    """Gather the answers of each control by question, in plain form."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        for question in row.questions:
            own = found[row.conversation.control_id]
            own[_plain(question.question)].add(_plain(question.answer))
    return found


def _is_changed(question: Question, theirs: Mapping[str, set[str]]) -> bool:
    """Tell whether another control, with these answers, would change the answer to a question.

    One that it was not asked counts as changed if it gives that answer to none of its questions;
    a yes/no question does not, as both may answer it alike.
    """
    answer, asked = _plain(question.answer), _plain(question.question)
    if asked in theirs:
        return answer not in theirs[asked]
    return question.type != "yes_no" and all(answer not in own for own in theirs.values())


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
