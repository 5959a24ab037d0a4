"""Tables of what a check of a data set found, for pages, cards and terminals."""

from __future__ import annotations

from collections.abc import Mapping

from core.records.result_table import ResultTable
from core.text.wording import number, share
from generators.quality.findings import Answerability, ControlEffects, Faithful, Obedience


def answerability_table(found: Answerability) -> ResultTable:
    """Collect token F1 of the answers that a model gave to the questions alone."""
    return ResultTable(
        head=("questions", "controls", "gold", "another’s gold", "above", "answerable"),
        rows=tuple(
            (name, own.own.n, own.own, own.other, own.above, own.answerable)
            for name, own in found.groups.items()
        ),
    )


def verdict_table(found: Faithful) -> ResultTable:
    """Collect the share of each verdict under the own control and under another one."""
    return ResultTable(
        head=("verdict", "own control", "another control"),
        rows=tuple((name, share(own), share(swapped)) for name, own, swapped in found.shares),
    )


def effect_table(found: Mapping[str, ControlEffects]) -> ResultTable:
    """Collect by how many nats completions are likelier under their own control."""
    return ResultTable(
        head=("rows", "completions", "controls", "mean", "median", "not above zero"),
        rows=tuple(
            (
                *(name, own.rows, own.controls),
                *(number(own.mean), number(own.median), share(own.below_zero)),
            )
            for name, own in found.items()
        ),
    )


def obedience_table(found: Mapping[str, Obedience]) -> ResultTable:
    """Collect the replies under instructions that code can check."""
    return ResultTable(
        head=("instruction", "replies", "obeyed", "share"),
        rows=tuple(
            (name, own.replies, own.obeyed, share(own.obeyed / own.replies))
            for name, own in found.items()
        ),
    )
