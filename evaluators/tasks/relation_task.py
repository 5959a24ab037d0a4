"""Feature extraction: read the object of a relation off the activation at the subject's last token.

The protocol is that of Patchscopes (arXiv 2401.06102, section 4.3): the subject stands in natural
text, which the target reads without a chat template, and only subjects whose object the target
itself can name count. Its own knowledge is measured here, and never taken from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from activation_store.target.capture import Capture
from activation_store.tokens.tokens import encode_plain_text
from core.documents.canonical import digest
from core.records.tables import Split
from decoder.batch import batches_by_length
from decoder.model import Decoder
from decoder.patched_text import PLACE, PatchedText, continue_texts
from evaluators.measure.partial_results import PartialResultCache
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.graded_task import Hop
from evaluators.tasks.rows import PlainPrompt, TaskData, TaskRow, with_choices
from generators.kinds.relation_files import Relation, Subject
from generators.rules.naming import fold, names_any

_ASKED, _FEWEST_ASKED = 32, 8
"""Most subjects that the target is asked about at once, and fewest where few are needed."""
_EXAMPLES = 3
"""Training subjects in a few-shot prompt."""
_BATCH = 32
"""Texts of one forward pass of the target."""


_PARTS: Mapping[Split, int] = {"train": 0, "validation": 1}
"""Part of the subjects of each split; that of any other is the test."""


@dataclass(frozen=True, slots=True)
class KnownSubjects:
    """Subjects whose object the target names, and how many it was asked about."""

    subjects: list[Subject]
    asked: int


@dataclass(frozen=True, slots=True)
class DividedSubjects:
    """Subjects of a relation, each in one part, in an order drawn by hash."""

    train: tuple[Subject, ...]
    validation: tuple[Subject, ...]
    test: tuple[Subject, ...]


def divide_subjects(
    relation: Relation, config: TasksConfig, splits: Mapping[str, Split] | None = None
) -> DividedSubjects:
    """Divide subjects by a hash of their names: a grown file moves none to another part.

    Args:
        relation: the subjects.
        config: the shares.
        splits: split of each subject that the decoder's own rows are about, by its label; it stays
            there, so that no subject of the test was trained on.
    """
    ends = (config.shares.train, config.shares.train + config.shares.validation)
    parts: tuple[list[Subject], ...] = ([], [], [])
    for subject in sorted(relation.subjects, key=lambda one: _rank(config, one.key)):
        split = (splits or {}).get(subject.label)
        drawn = int(_rank(config, [subject.key, "part"])[:12], 16) / 16**12
        part = sum(drawn >= end for end in ends) if split is None else _PARTS.get(split, 2)
        parts[part].append(subject)
    return DividedSubjects(*map(tuple, parts))


def _question(subject: Subject) -> str:
    text = subject.fill(subject.name)
    return f"{text}{'' if text.rstrip().endswith('?') else '?'}\nAnswer:"


KNOWLEDGE_FORMS: tuple[Callable[[Subject], str], ...] = (
    lambda subject: subject.fill(subject.name),
    lambda subject: subject.state(subject.name),
    _question,
)
"""Forms in which the target is asked what it knows: the relation alone, as Patchscopes ask; with
its verb; as a question."""


def find_known(
    decoder: Decoder, subjects: Sequence[Subject], *, most: int, tokens: int, least: int = 1
) -> KnownSubjects:
    """Find the first subjects whose object the target names in one of `KNOWLEDGE_FORMS`.

    Args:
        decoder: whose target is asked.
        subjects: in the order in which they are asked.
        most: subjects that are enough.
        tokens: in which the object has to be named.
        least: fewest subjects that a task needs; once these cannot be reached, no more are
            asked.

    Returns:
        At most `most` subjects, and how many were asked.
    """
    known: list[Subject] = []
    at_once = min(_ASKED, max(_FEWEST_ASKED, 2 * most))
    for start in range(0, len(subjects), at_once):
        if len(known) + len(subjects) - start < least:
            return KnownSubjects(known, start)
        part = list(subjects[start : start + at_once])
        named: set[str] = set()
        for form in KNOWLEDGE_FORMS:
            left = [one for one in part if one.key not in named]
            named |= _named_by_target(decoder, left, form, tokens) if left else set()
        for i, subject in enumerate(part):
            if subject.key in named:
                known.append(subject)
            if len(known) == most:
                return KnownSubjects(known, start + i + 1)
    return KnownSubjects(known, len(subjects))


def _named_by_target(
    decoder: Decoder, subjects: Sequence[Subject], form: Callable[[Subject], str], tokens: int
) -> set[str]:
    """Ask the target in one form; return the keys of subjects whose object it names."""
    texts = [PatchedText.make(decoder.tokenizer, form(one)) for one in subjects]
    injection = decoder.injection_at(0, "replace")
    found = continue_texts(decoder, injection, texts, max_tokens=tokens)
    return {
        subject.key
        for subject, answer in zip(subjects, found, strict=True)
        if names_any(answer.text, subject.objects)
    }


def build_relation_task(
    decoder: Decoder,
    relation: Relation,
    config: TasksConfig,
    layers: Sequence[int],
    *,
    cache: PartialResultCache | None = None,
    splits: Mapping[str, Split] | None = None,
) -> TaskData:
    """Build the rows of a relation, with the target's activations.

    A task of which the target knows too few subjects has no rows, and says why.

    Args:
        decoder: whose target reads the texts.
        relation: subjects and texts.
        config: shares and sizes.
        layers: blocks whose outputs rows have.
        cache: keeps what the target knows, for an interrupted run; None keeps nothing.
        splits: as for `divide_subjects`.
    """
    divided = divide_subjects(relation, config, splits)
    tokens = config.answer_tokens

    def ask(part: str, subjects: Sequence[Subject], most: int, least: int) -> KnownSubjects:
        subjects = subjects[: config.max_asked]
        name, names = f"{relation.name}.known.{part}", [one.key for one in subjects]

        def ask_target() -> list[Any]:
            found = find_known(decoder, subjects, most=most, tokens=tokens, least=least)
            return [[one.key for one in found.subjects], found.asked]

        known, asked = cache.load_or_measure(name, names, ask_target) if cache else ask_target()
        return KnownSubjects([one for one in subjects if one.key in known], asked)

    found = ask("test", divided.test, config.max_subjects, config.min_subjects)
    test = found.subjects
    counts = {
        "subjects": len(relation.subjects),
        "test_asked": found.asked,
        "test_known": len(test),
        **{f"dropped: {rule}": n for rule, n in sorted(relation.dropped.items())},
    }
    if len(test) < config.min_subjects:
        known = f"the test split has {len(divided.test)} subjects"
        if found.asked:
            known = f"the target knows {len(test)} of {found.asked} test subjects"
        why = f"{known}, and tasks.min_subjects requires {config.min_subjects}"
        return TaskData(name=relation.name, layers=tuple(layers), counts=counts, why_not=why)
    validation = ask("validation", divided.validation, config.validation_subjects, 1).subjects
    used = {one.key for one in (*test, *validation)}
    everyone = (*divided.train, *divided.validation, *divided.test)
    train = [one for one in everyone if one.key not in used][: config.train_subjects]
    counts |= {"validation_known": len(validation), "train": len(train)}
    if not validation or not train:
        missing = "known to the target for validation" if not validation else "left for training"
        why = f"no subject is {missing}"
        return TaskData(name=relation.name, layers=tuple(layers), counts=counts, why_not=why)
    builder = _RowBuilder(decoder, config, layers, _few_shot(train))
    tested = builder.build(test, sources=1)
    return TaskData(
        name=relation.name,
        train=builder.build(train, sources=config.train_sources),
        validation=builder.build(validation, sources=1),
        test=with_choices(tested, [row.questions[0] for row in tested], seed=config.seed),
        layers=tuple(layers),
        counts=counts,
    )


def find_hops(
    decoder: Decoder, data: TaskData, others: Sequence[Relation], config: TasksConfig
) -> list[Hop]:
    """Find relations by which the objects of a task lead on, to what the target knows.

    Args:
        decoder: whose target is asked.
        data: a task.
        others: other relations.
        config: how long an answer may be.
    """
    objects = {tuple(fold(row.answer)) for row in (*data.validation, *data.test)}
    hops = []
    for relation in others:
        subjects = [one for one in relation.subjects if tuple(fold(one.name)) in objects]
        known = find_known(
            decoder, subjects, most=max(1, len(subjects)), tokens=config.answer_tokens
        ).subjects
        if known:
            by_name = {tuple(fold(one.name)): one for one in known}
            hops.append(Hop(name=relation.name, subjects=by_name))
    return hops


class _RowBuilder:
    """Builds the rows of subjects, and runs the target for their activations."""

    def __init__(
        self, decoder: Decoder, config: TasksConfig, layers: Sequence[int], examples: str
    ) -> None:
        self._decoder = decoder
        self._config = config
        self._layers = tuple(layers)
        self._examples = examples

    def build(self, subjects: Sequence[Subject], *, sources: int) -> tuple[TaskRow, ...]:
        """Build at most `sources` rows of each subject, drawn by hash."""
        drawn = [
            (subject, text)
            for subject in subjects
            for text in sorted(
                subject.texts, key=lambda one: _rank(self._config, [subject.key, one])
            )[:sources]
        ]
        tokens = [encode_plain_text(self._decoder.tokenizer, text).ids for _, text in drawn]
        vectors = self._capture(tokens)
        return tuple(
            self._row(subject, text, ids, found)
            for (subject, text), ids, found in zip(drawn, tokens, vectors, strict=True)
        )

    def _row(
        self, subject: Subject, text: str, ids: np.ndarray, vectors: dict[int, np.ndarray]
    ) -> TaskRow:
        statement, plain = subject.state(PLACE), subject.state(subject.name)
        asked = subject.fill(subject.name)
        asked = asked if asked.rstrip().endswith("?") else f"{plain} what?"
        return TaskRow(
            row_id=digest([subject.key, text])[:16],
            group=subject.key,
            vectors=vectors,
            token_ids=ids[-1:],
            position=len(ids) - 1,
            answers=subject.objects,
            text=text,
            name=subject.name,
            questions=subject.questions,
            patched=(statement, f"{self._examples}{statement}"),
            plain=(
                PlainPrompt(messages=(("user", f"{asked} Answer with the name alone."),)),
                PlainPrompt(messages=(("user", f"Complete the sentence: {plain}"),), prefill=plain),
            ),
        )

    def _capture(self, sequences: Sequence[np.ndarray]) -> list[dict[int, np.ndarray]]:
        """Return each text's last activation [1, D] by block."""
        out: dict[int, dict[int, np.ndarray]] = {}
        with self._decoder.without_adapter(), torch.inference_mode():
            run = Capture(self._decoder.net.get_base_model(), self._layers)
            for rows in batches_by_length([len(own) for own in sequences], rows=_BATCH):
                found = run([sequences[i] for i in rows])
                for at, i in enumerate(rows):
                    last = len(sequences[i]) - 1
                    out[i] = {
                        layer: values[at, last : last + 1].float().cpu().numpy()
                        for layer, values in found.items()
                    }
        return [out[i] for i in range(len(sequences))]


def _few_shot(subjects: Sequence[Subject]) -> str:
    """Write lines about the first training subjects that have different objects."""
    by_object = {subject.objects[0]: subject for subject in reversed(subjects)}
    chosen = sorted(by_object.values(), key=subjects.index)[:_EXAMPLES]
    return "".join(f"{one.state(one.name)} {one.objects[0]}\n" for one in chosen)


def _rank(config: TasksConfig, what: object) -> str:
    return digest([config.seed, what])
