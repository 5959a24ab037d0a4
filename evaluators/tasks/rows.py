"""Rows of a reading task: activations, what is asked about them, and what is right."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from evaluators.tasks.quartets import SIZE, make_quartets
from generators.rules.naming import names_any

Headline = Literal["contained", "chosen"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainPrompt:
    """A way to ask the target in words, with what was read named outright.

    Attributes:
        messages: role and content of each, the last of the user.
        prefill: how the target's own reply begins; empty where it begins as it likes.
    """

    messages: tuple[tuple[str, str], ...]
    prefill: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRow:
    """One row: n activations of D features by block, and its question.

    Attributes:
        row_id: unique within a task.
        group: rows of one group are drawn together in a bootstrap sample, such as a subject's.
        vectors: [n, D] float32 by block, the activations that are read.
        token_ids: [n] int64, the tokens that they stand at.
        position: of the first of them, in the target's own sequence.
        answers: names that are right, the gold one first.
        questions: forms of the question to a decoder.
        patched: forms of it as texts that the answer continues, with the mark
            `decoder.patched_text.PLACE` where an activation enters.
        plain: forms of it to the target, in words.
        options: answers to choose from; empty where the row is in no choice.
        gold: index of the right one among them.
        choice: number of the choice that it shares with other rows; None for none.
        text: that was read, up to the end of the subject; empty where there is none.
        name: of the subject; empty where there is none.
        swapped: as `vectors`, the same visible text under another control; None where nothing is
            hidden, or there is no other control.
    """

    row_id: str
    group: str
    vectors: Mapping[int, np.ndarray]
    token_ids: np.ndarray
    position: int
    answers: tuple[str, ...]
    questions: tuple[str, ...]
    patched: tuple[str, ...]
    plain: tuple[PlainPrompt, ...]
    options: tuple[str, ...] = ()
    gold: int = 0
    choice: int | None = None
    text: str = ""
    name: str = ""
    swapped: Mapping[int, np.ndarray] | None = None

    @property
    def answer(self) -> str:
        """The gold answer."""
        return self.answers[0]

    def last(self, layer: int) -> np.ndarray:
        """Return the activation [D] of the last token at a block."""
        vector: np.ndarray = self.vectors[layer][-1]
        return vector


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskData:
    """The rows of one task.

    Attributes:
        name: of the task.
        train: what may be learned from; no group of it is in another part.
        validation: on which settings are chosen.
        test: on which everything is reported.
        layers: blocks whose activations the rows have.
        counts: how the rows came about: subjects, dropped rows and such.
        why_not: why the task is not measured; None where it is.
        headline: by which measure settings are chosen and methods compared: `contained`, the object
            named in a written answer, or `chosen`, the right choice among the options.
        compares_words: whether written answers are compared word by word with a long gold answer;
            elsewhere they have to name it.
        answer_tokens: longest written answer, in tokens; None takes that of the config.
        facts: other numbers about the rows, by name.
        chance: share of right choices of a method that ignores the activations.
    """

    name: str
    train: tuple[TaskRow, ...] = ()
    validation: tuple[TaskRow, ...] = ()
    test: tuple[TaskRow, ...] = ()
    layers: tuple[int, ...]
    counts: dict[str, int]
    why_not: str | None = None
    headline: Headline = "contained"
    chance: float = 1 / SIZE
    compares_words: bool = False
    answer_tokens: int | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    def unless(self, why_not: str | None) -> TaskData:
        """Return the task; without rows where `why_not` says why it cannot be measured."""
        if why_not is None:
            return self
        return replace(self, train=(), validation=(), test=(), why_not=why_not)


def with_choices(
    rows: Sequence[TaskRow], strata: Sequence[Hashable], *, seed: int
) -> tuple[TaskRow, ...]:
    """Give rows of a stratum that have different answers four options, each gold once.

    Args:
        rows: without options.
        strata: of each row, what rows with the same options have in common, such as the question.
        seed: of the draw.
    """
    groups = make_quartets([row.answer for row in rows], strata, seed=seed)
    out = list(rows)
    number = 0
    for group in groups:
        options = tuple(rows[i].answer for i in group)
        right = [names_any(option, rows[i].answers) for i in group for option in options]
        if sum(right) > len(group):
            continue  # an answer of one is right for another too
        for gold, i in enumerate(group):
            out[i] = replace(rows[i], options=options, gold=gold, choice=number)
        number += 1
    return tuple(out)
