"""Slices of the data that are evaluated: the rows of one split and view, masked or visible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.records.tables import VIEWS, Dropped, View
from decoder.question_prompt import DecoderPrompt
from evaluators.config import EvaluateConfig
from trainers.data.rows import Row, drop_unwritable_questions, select


@dataclass(frozen=True, kw_only=True)
class EvalSlice:
    """The evaluated rows of one split and view.

    Attributes:
        split: of the rows.
        name: the view, with `+visible` where a masked view is evaluated without masking.
        masking: whether the control's own tokens are withheld.
        rows: what is evaluated.
        pool: all rows of the split and view, from which partners and distractors are drawn.
        train: training rows of the view, for the mean token; of any view where it has none.
        unwritable: questions of the split and view that the chat template cannot write.
    """

    split: str
    name: str
    masking: bool
    rows: list[Row]
    pool: list[Row]
    train: list[Row]
    unwritable: int = 0


def select_slices(
    rows: list[Row],
    config: EvaluateConfig,
    masking: bool,
    unwritable: Mapping[tuple[str, str], int],
) -> list[EvalSlice]:
    """Select the slices that `config` asks for and `rows` have.

    Args:
        rows: all rows.
        config: splits, views and controls of each.
        masking: whether the decoder withholds the control's own tokens.
        unwritable: dropped questions by split and view (see `drop_unwritable`).
    """
    out = []
    for split in config.splits:
        for view in config.views:
            pool = select(rows, split=split, views=[view], most=None, seed=config.seed)
            if not pool:
                continue
            train = _training_rows(rows, [view], config) or _training_rows(rows, VIEWS, config)
            controls = dict.fromkeys(row.conversation.control_id for row in pool)
            wanted = set(list(controls)[: config.max_controls])
            chosen = [row for row in pool if row.conversation.control_id in wanted]
            out += [
                EvalSlice(
                    split=split,
                    name=name,
                    masking=mask,
                    rows=chosen,
                    pool=pool,
                    train=train,
                    unwritable=unwritable.get((split, view), 0),
                )
                for name, mask in _maskings(view, config, masking)
            ]
    return out


def _maskings(view: View, config: EvaluateConfig, masking: bool) -> list[tuple[str, bool]]:
    """Name the ways in which a view is evaluated, each with whether it is masked."""
    if view == "control":
        return [(view, False)]
    visible = (f"{view}+visible", False)
    if not masking:
        return [visible]
    return [(view, True), *([visible] if config.visible_too else [])]


def drop_unwritable(
    rows: Sequence[Row], prompt: DecoderPrompt, config: EvaluateConfig
) -> tuple[list[Row], list[Dropped], Counter[tuple[str, str]]]:
    """Drop questions of evaluated rows that the chat template cannot write.

    Returns:
        The rows, the dropped questions, and their number by split and view.
    """
    evaluated = [_is_evaluated(row, config) for row in rows]
    kept, dropped = drop_unwritable_questions(
        prompt, [row for row, wanted in zip(rows, evaluated, strict=True) if wanted]
    )
    kept_by_id = {row.example_id: row for row in kept}
    out: list[Row] = []
    counts: Counter[tuple[str, str]] = Counter()
    for row, wanted in zip(rows, evaluated, strict=True):
        found = kept_by_id.get(row.example_id) if wanted else row
        if found is not None:
            out.append(found)
        asked = len(found.questions) if found is not None else 0
        conversation = row.conversation
        counts[conversation.split, conversation.view] += len(row.questions) - asked
    return out, dropped, +counts


def _is_evaluated(row: Row, config: EvaluateConfig) -> bool:
    conversation = row.conversation
    return conversation.split in config.splits and conversation.view in config.views


def _training_rows(rows: list[Row], views: Sequence[View], config: EvaluateConfig) -> list[Row]:
    return select(rows, split="train", views=views, most=None, seed=config.seed)
