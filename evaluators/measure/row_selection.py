"""What is judged: the rows of each split and view, and how much of them the decoder sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.tables import VIEWS, Dropped, View
from decoder.prompt import DecoderPrompt
from evaluators.config import EvaluateConfig
from trainers.rows import Row, drop_unwritable_questions, select


@dataclass(frozen=True, kw_only=True)
class EvalSlice:
    """The rows of one split and view that are judged.

    Attributes:
        name: the view, with `+visible` where masking is off.
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
    """The cases that `config` asks for and `rows` have.

    Args:
        masking: whether the decoder withholds the control's own tokens.
        unwritable: questions that were dropped, by split and view (see `writable`).
    """
    out = []
    for split in config.splits:
        for view in config.views:
            pool = select(rows, split=split, views=[view], most=None, seed=config.seed)
            if not pool:
                continue
            train = _training(rows, [view], config) or _training(rows, VIEWS, config)
            controls = dict.fromkeys(row.conversation.control_id for row in pool)
            wanted = set(list(controls)[: config.max_controls])
            own = [row for row in pool if row.conversation.control_id in wanted]
            visible = (f"{view}+visible", False)
            if view == "control":
                kinds = [(str(view), False)]
            elif not masking:
                kinds = [visible]
            else:
                kinds = [(str(view), True), *([visible] if config.visible_too else [])]
            out += [
                EvalSlice(
                    split=split,
                    name=name,
                    masking=mask,
                    rows=own,
                    pool=pool,
                    train=train,
                    unwritable=unwritable.get((split, view), 0),
                )
                for name, mask in kinds
            ]
    return out


def writable(
    rows: Sequence[Row], prompt: DecoderPrompt, config: EvaluateConfig
) -> tuple[list[Row], list[Dropped], Counter[tuple[str, str]]]:
    """Rows without the questions of judged ones that the chat template cannot write.

    Returns:
        The rows, those questions, and how many there are by split and view.
    """
    judged = [_judged(row, config) for row in rows]
    kept, dropped = drop_unwritable_questions(
        prompt, [row for row, own in zip(rows, judged, strict=True) if own]
    )
    whole = {row.example_id: row for row in kept}
    out: list[Row] = []
    lacking: Counter[tuple[str, str]] = Counter()
    for row, own in zip(rows, judged, strict=True):
        found = whole.get(row.example_id) if own else row
        if found is not None:
            out.append(found)
        asked = len(found.questions) if found is not None else 0
        conversation = row.conversation
        lacking[conversation.split, conversation.view] += len(row.questions) - asked
    return out, dropped, +lacking


def _judged(row: Row, config: EvaluateConfig) -> bool:
    own = row.conversation
    return own.split in config.splits and own.view in config.views


def _training(rows: list[Row], views: Sequence[View], config: EvaluateConfig) -> list[Row]:
    return select(rows, split="train", views=views, most=None, seed=config.seed)
