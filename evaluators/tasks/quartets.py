"""Groups of four rows whose four answers are the options of each row.

Every row of a group is given the same question and the same four options, and each option is gold
once. So a method that ignores a row's activations answers all four alike and is right about exactly
one: accuracy without reading is 1 in 4, whatever the method knows about answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from core.documents.canonical import digest
from generators.rules.naming import fold

SIZE = 4


def make_quartets(
    answers: Sequence[str], strata: Sequence[Hashable], *, seed: int
) -> list[tuple[int, ...]]:
    """Group rows so that the four of a group have four answers; as many as possible.

    Args:
        answers: gold answer of each row.
        strata: rows are grouped with those of the same stratum, such as the same question.
        seed: of the order in which rows of one answer are taken.

    Returns:
        Indices of the rows of each group; a row that fits nowhere is in none.
    """
    out: list[tuple[int, ...]] = []
    for stratum in dict.fromkeys(strata):
        by_answer: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i, answer in enumerate(answers):
            if strata[i] == stratum:
                by_answer[tuple(fold(answer))].append(i)
        for own in by_answer.values():
            own.sort(key=lambda i: digest([seed, i]))
        while True:
            # the answers with most rows left first: that leaves the fewest rows over
            order = sorted(by_answer, key=lambda name: (-len(by_answer[name]), name))
            chosen = _apart([name for name in order if by_answer[name]])
            if len(chosen) < SIZE:
                break
            out.append(tuple(by_answer[name].pop() for name in chosen))
    return out


def score_choice(scores: Sequence[float], gold: int) -> float:
    """Score a choice: 1 where gold scores highest, shared where others score as high."""
    highest = max(scores)
    return 1 / list(scores).count(highest) if scores[gold] == highest else 0.0


def _apart(names: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Take the first four names of which none holds all words of another."""
    chosen: list[tuple[str, ...]] = []
    for name in names:
        if all(not set(name) <= set(one) and not set(one) <= set(name) for one in chosen):
            chosen.append(name)
        if len(chosen) == SIZE:
            break
    return chosen
