"""Rows of a reading task: activations, what is asked about them, and what is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


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
    """

    name: str
    train: tuple[TaskRow, ...]
    validation: tuple[TaskRow, ...]
    test: tuple[TaskRow, ...]
    layers: tuple[int, ...]
    counts: dict[str, int]
    why_not: str | None = None
