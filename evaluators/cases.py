"""What is judged: the rows of each split and view, and how much of them the decoder sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.config import EvaluateConfig
from generators.schema import VIEWS, View
from trainers.rows import Row, select


@dataclass(frozen=True, kw_only=True)
class Case:
    """The rows of one split and view that are judged.

    Attributes:
        name: the view, with `+visible` where masking is off.
        pool: all rows of the split and view, from which partners and distractors are drawn.
        train: training rows of the view, for the mean token; of any view where it has none.
    """

    split: str
    name: str
    masking: bool
    rows: list[Row]
    pool: list[Row]
    train: list[Row]


def find_cases(rows: list[Row], config: EvaluateConfig, masking: bool) -> list[Case]:
    """The cases that `config` asks for and `rows` have.

    Args:
        masking: whether the decoder withholds the control's own tokens.
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
                Case(split=split, name=name, masking=mask, rows=own, pool=pool, train=train)
                for name, mask in kinds
            ]
    return out


def _training(rows: list[Row], views: Sequence[View], config: EvaluateConfig) -> list[Row]:
    return select(rows, split="train", views=views, most=None, seed=config.seed)
