"""Feature extraction: read the object of a relation off the activation at the subject's last token.

The protocol is that of Patchscopes (arXiv 2401.06102, section 4.3): the subject stands in natural
text, which the target reads without a chat template, and only subjects whose object the target
itself can name count. Its own knowledge is measured here, and never taken from a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from activation_store.target.capture import Capture
from activation_store.target.tokens import Encoded
from core.canonical import digest
from core.progress import Progress, silent
from decoder.model import Decoder
from decoder.patched_text import PLACE, PatchedText, continue_texts, text_ids
from evaluators.tasks.answers import names_any
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.quartets import make_quartets
from evaluators.tasks.relations import Relation, Source, Subject
from evaluators.tasks.rows import PlainPrompt, TaskData, TaskRow

_ASKED = 32
"""Subjects that the target is asked about at once."""
_EXAMPLES = 3
"""Training subjects in a few-shot prompt."""
_BATCH = 32
"""Texts of one forward pass of the target."""


@dataclass(frozen=True, slots=True)
class DividedSubjects:
    """Subjects of a relation, each in one part, in an order drawn by hash."""

    train: tuple[Subject, ...]
    validation: tuple[Subject, ...]
    test: tuple[Subject, ...]


def divide_subjects(relation: Relation, config: TasksConfig) -> DividedSubjects:
    """Divide subjects by a hash of their names: a grown file moves none to another part."""
    ends = (config.shares.train, config.shares.train + config.shares.validation)
    parts: tuple[list[Subject], ...] = ([], [], [])
    for subject in sorted(relation.subjects, key=lambda one: _rank(config, one.key)):
        drawn = int(_rank(config, [subject.key, "part"])[:12], 16) / 16**12
        parts[sum(drawn >= end for end in ends)].append(subject)
    return DividedSubjects(*map(tuple, parts))


def find_known(
    decoder: Decoder, subjects: Sequence[Subject], *, most: int, tokens: int
) -> tuple[list[Subject], int]:
    """Find the first subjects whose object the target names when it goes on with the relation.

    Args:
        decoder: whose target is asked.
        subjects: in the order in which they are asked.
        most: subjects that are enough.
        tokens: in which the object has to be named.

    Returns:
        At most `most` subjects, and how many were asked.
    """
    known: list[Subject] = []
    asked = 0
    injection = decoder.injection_at(0, "replace")
    for start in range(0, len(subjects), _ASKED):
        part = subjects[start : start + _ASKED]
        texts = [PatchedText.make(decoder.tokenizer, one.fill(one.name)) for one in part]
        found = continue_texts(decoder, injection, texts, max_tokens=tokens)
        for subject, answer in zip(part, found, strict=True):
            asked += 1
            if names_any(answer.text, subject.objects):
                known.append(subject)
            if len(known) == most:
                return known, asked
    return known, asked


def build_relation_task(
    decoder: Decoder,
    relation: Relation,
    config: TasksConfig,
    layers: Sequence[int],
    *,
    progress: Progress = silent,
) -> TaskData:
    """Build the rows of a relation, with the target's activations.

    A task of which the target knows too few subjects has no rows, and says why.

    Args:
        decoder: whose target reads the texts.
        relation: subjects and texts.
        config: shares and sizes.
        layers: blocks whose outputs rows have.
        progress: told which part is under way.
    """
    divided = divide_subjects(relation, config)
    progress(0, 3, f"{relation.name}: what the target knows")
    tokens = config.answer_tokens
    test, asked = find_known(decoder, divided.test, most=config.max_subjects, tokens=tokens)
    counts = {
        "subjects": len(relation.subjects),
        "test_asked": asked,
        "test_known": len(test),
        **{f"dropped: {rule}": n for rule, n in sorted(relation.dropped.items())},
    }
    known = f"the target knows {len(test)} of {asked} subjects of the test"
    if len(test) < config.min_subjects:
        why = f"{known}, expected at least {config.min_subjects} (tasks.min_subjects)"
        return _not_measured(relation, layers, counts, why)
    progress(1, 3, f"{relation.name}: what the target knows")
    most = config.validation_subjects
    validation, _ = find_known(decoder, divided.validation, most=most, tokens=tokens)
    counts |= {"validation_known": len(validation), "train": len(divided.train)}
    if not validation or not divided.train:
        why = f"{known}, and {len(validation)} on which settings could be chosen"
        return _not_measured(relation, layers, counts, why)
    progress(2, 3, f"{relation.name}: activations")
    builder = _RowBuilder(decoder, config, layers, _few_shot(divided.train))
    return TaskData(
        name=relation.name,
        train=builder.build(divided.train, sources=config.train_sources),
        validation=builder.build(validation, sources=1),
        test=with_choices(builder.build(test, sources=1), seed=config.seed),
        layers=tuple(layers),
        counts=counts,
    )


def with_choices(rows: Sequence[TaskRow], *, seed: int) -> tuple[TaskRow, ...]:
    """Give rows with different answers to the same question four options, each gold once."""
    groups = make_quartets(
        [row.answer for row in rows], [row.questions[0] for row in rows], seed=seed
    )
    out = list(rows)
    number = 0
    for group in groups:
        options = tuple(rows[i].answer for i in group)
        own = [names_any(option, rows[i].answers) for i in group for option in options]
        if sum(own) > len(group):
            continue  # an answer of one is right for another too
        for gold, i in enumerate(group):
            out[i] = replace(rows[i], options=options, gold=gold, choice=number)
        number += 1
    return tuple(out)


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
            (subject, source)
            for subject in subjects
            for source in sorted(
                subject.sources, key=lambda one: _rank(self._config, [subject.key, one.text])
            )[:sources]
        ]
        tokens = [_up_to_subject(self._decoder, source) for _, source in drawn]
        vectors = self._capture(tokens)
        return tuple(
            self._row(subject, source, ids, found)
            for (subject, source), ids, found in zip(drawn, tokens, vectors, strict=True)
        )

    def _row(
        self, subject: Subject, source: Source, ids: np.ndarray, vectors: dict[int, np.ndarray]
    ) -> TaskRow:
        stem, statement = subject.stem, state(subject, PLACE)
        plain = state(subject, subject.name)
        return TaskRow(
            row_id=digest([subject.key, source.text])[:16],
            group=subject.key,
            vectors=vectors,
            token_ids=ids[-1:],
            position=len(ids) - 1,
            answers=subject.objects,
            questions=(stem, f'Complete the sentence with a name: "{stem} … is"'),
            patched=(statement, f"{self._examples}{statement}"),
            plain=(
                PlainPrompt(messages=(("user", f"{plain} what? Answer with the name alone."),)),
                PlainPrompt(messages=(("user", f"Complete the sentence: {plain}"),), prefill=plain),
            ),
        )

    def _capture(self, sequences: Sequence[np.ndarray]) -> list[dict[int, np.ndarray]]:
        """Return each text's last activation [1, D] by block."""
        out: dict[int, dict[int, np.ndarray]] = {}
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        with self._decoder.without_adapter(), torch.inference_mode():
            run = Capture(self._decoder.net.get_base_model(), self._layers)
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                found = run([sequences[i] for i in rows])
                for at, i in enumerate(rows):
                    last = len(sequences[i]) - 1
                    out[i] = {
                        layer: values[at, last : last + 1].float().cpu().numpy()
                        for layer, values in found.items()
                    }
        return [out[i] for i in range(len(sequences))]


def state(subject: Subject, name: str) -> str:
    """Write the relation about `name` so that its object can follow."""
    text = subject.fill(name)
    return f"{text} Answer:" if text.rstrip().endswith("?") else f"{text} is"


def _few_shot(subjects: Sequence[Subject]) -> str:
    """Write lines about the first training subjects that have different objects."""
    by_object = {subject.objects[0]: subject for subject in reversed(subjects)}
    chosen = sorted(by_object.values(), key=subjects.index)[:_EXAMPLES]
    return "".join(f"{state(one, one.name)} {one.objects[0]}\n" for one in chosen)


def _up_to_subject(decoder: Decoder, source: Source) -> np.ndarray:
    """Tokenize a text up to the last token of its subject; the target sees nothing behind it."""
    encoded = Encoded.of(decoder.tokenizer, source.text)
    whole = text_ids(decoder.tokenizer, source.text)
    last = int(np.flatnonzero(encoded.starts < source.stop)[-1])
    return whole[: len(whole) - len(encoded.ids) + last + 1]


def _rank(config: TasksConfig, what: object) -> str:
    return digest([config.seed, what])


def _not_measured(
    relation: Relation, layers: Sequence[int], counts: dict[str, int], why: str
) -> TaskData:
    return TaskData(
        name=relation.name,
        train=(),
        validation=(),
        test=(),
        layers=tuple(layers),
        counts=counts,
        why_not=why,
    )
