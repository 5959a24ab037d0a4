"""Statistics of a data set: counts, lengths, leaks between splits, flags."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from core.records.tables import KIND_NAMES, SPLITS, VIEWS, Conversation, Dropped, Question
from core.records.tool_use import message_text
from generators.quality.config import RulesConfig
from generators.quality.findings import Obedience
from generators.quality.flags import flag_rows
from generators.rules.obedience import checks_of, obeys


def describe_dataset(
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    dropped: Sequence[Dropped] = (),
    rules: RulesConfig | None = None,
) -> dict[str, Any]:
    """Count and measure a data set, and check what needs no LLM.

    Args:
        conversations: all rows.
        questions: those about them.
        dropped: rows that were not kept.
        rules: thresholds of the checks; None for the defaults.

    Returns:
        `controls` (distinct control texts a kind), `examples` (conversations), `groups`, `labels`,
        `questions` (rows), `distinct_questions`, `distinct_answers`; `dropped` by reason and
        `flags`; `by_kind`, `by_view`, `by_split`, `by_category` (`kind/category`), each
        {controls, examples, questions}; `by_type`: questions of each type, where it is known;
        `characters` of each segment (all its messages together),
        question and answer: {count, mean, median, p95, max}; `leaks`: group ids, labels and
        control ids that stand in more than one split, each list empty in a sound data set;
        `obedience`: of each attribute that a control sets and code can check, {replies, obeyed};
        `unanswered`: conversations without a question; `per_control`: {min, median, max} of the
        distinct questions of a control; `shared`: share of the distinct (control, `question`) and
        (control, `answer`) pairs whose text stands with another control too, the second of which
        is what generic answers are; and `checks`: {`flags`: {flag: {rows, share}}, `examples`,
        `compared`} (generators.quality.flags).
    """
    control_of = {row.example_id: row.control_id for row in conversations}
    checked = flag_rows(conversations, questions, rules or RulesConfig())
    asked = Counter(question.example_id for question in questions)
    flags = [flag for row in conversations for flag in row.flags]
    flags += [flag for question in questions for flag in question.flags]
    return {
        "controls": len({row.control_id for row in conversations}),
        "examples": len(conversations),
        "groups": len({row.group_id for row in conversations}),
        "labels": len({row.label for row in conversations}),
        "questions": len(questions),
        "distinct_questions": len({question.question for question in questions}),
        "distinct_answers": len({question.answer for question in questions}),
        "unanswered": sum(not asked[row.example_id] for row in conversations),
        "dropped": _sorted(Counter(row.reason for row in dropped)),
        "flags": _sorted(Counter(flags)),
        "by_kind": _by(conversations, asked, lambda row: row.kind, KIND_NAMES),
        "by_view": _by(conversations, asked, lambda row: row.view, VIEWS),
        "by_split": _by(conversations, asked, lambda row: row.split, SPLITS),
        "by_category": _by(conversations, asked, lambda row: f"{row.kind}/{row.category}", ()),
        "by_type": _sorted(Counter(q.type for q in questions if q.type is not None)),
        "characters": _characters(conversations, questions),
        "leaks": {
            "groups": _in_two_splits(conversations, lambda row: row.group_id),
            "labels": _in_two_splits(conversations, lambda row: row.label),
            "controls": _in_two_splits(conversations, lambda row: row.control_id),
        },
        "obedience": {name: own.to_json() for name, own in count_obedience(conversations).items()},
        "per_control": _per_control(conversations, questions, control_of),
        "shared": {
            "question": _shared((control_of[q.example_id], q.question) for q in questions),
            "answer": _shared((control_of[q.example_id], q.answer) for q in questions),
        },
        "checks": checked.count(len(conversations) + len(questions)).to_json(),
    }


def _by(
    rows: Sequence[Conversation],
    asked: Counter[str],
    key: Callable[[Conversation], str],
    order: Sequence[str],
) -> dict[str, dict[str, int]]:
    parts: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        parts[key(row)].append(row)
    names = [name for name in order if name in parts]
    names += sorted(set(parts) - set(names))
    return {
        name: {
            "controls": len({row.control_id for row in parts[name]}),
            "examples": len(parts[name]),
            "questions": sum(asked[row.example_id] for row in parts[name]),
        }
        for name in names
    }


def _characters(
    conversations: Sequence[Conversation], questions: Sequence[Question]
) -> dict[str, dict[str, float]]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for row in conversations:
        of_segment: Counter[str] = Counter()
        for message in row.messages:
            of_segment[message.segment] += len(message_text(message))
        for segment, length in of_segment.items():
            lengths[segment].append(length)
    lengths["question"] = [len(question.question) for question in questions]
    lengths["answer"] = [len(question.answer) for question in questions]
    names = ("template", "control", "stimulus", "completion", "question", "answer")
    return {name: _summary(lengths[name]) for name in names if lengths[name]}


def _summary(lengths: Sequence[int]) -> dict[str, float]:
    ordered = sorted(lengths)
    return {
        "count": len(ordered),
        "mean": round(statistics.fmean(ordered), 1),
        "median": statistics.median(ordered),
        "p95": ordered[-(-95 * len(ordered) // 100) - 1],
        "max": ordered[-1],
    }


def _per_control(
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    control_of: Mapping[str, str],
) -> dict[str, float] | None:
    of_control: dict[str, set[str]] = {row.control_id: set() for row in conversations}
    for question in questions:
        of_control[control_of[question.example_id]].add(question.question)
    counts = [len(found) for found in of_control.values()]
    if not counts:
        return None
    return {"min": min(counts), "median": statistics.median(counts), "max": max(counts)}


def _shared(pairs: Iterable[tuple[str, str]]) -> float:
    """Return the share of distinct (control, text) pairs whose text other controls have too."""
    distinct = set(pairs)
    controls = Counter(text for _, text in distinct)
    return sum(controls[text] > 1 for _, text in distinct) / len(distinct) if distinct else 0.0


def _in_two_splits(rows: Iterable[Conversation], key: Callable[[Conversation], str]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[key(row)].add(_group_split(row))
    return sorted(name for name, found in splits.items() if len(found) > 1)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def count_obedience(conversations: Sequence[Conversation]) -> dict[str, Obedience]:
    """Count the replies under each checkable instruction, and those that obey it."""
    found: dict[str, list[bool]] = defaultdict(list)
    for row in conversations:
        reply = " ".join(m.content for m in row.messages if m.segment == "completion")
        for attribute, check in checks_of(row).items() if reply else ():
            found[attribute].append(obeys(reply, check))
    return {
        name: Obedience(replies=len(own), obeyed=sum(own)) for name, own in sorted(found.items())
    }


def _group_split(row: Conversation) -> str:
    """Return the split of the row's group: `test_seen` asks training controls other stimuli."""
    return "train" if row.split == "test_seen" else row.split
