"""The evaluation of changes: altered rows, and a target that was fine-tuned.

The target runs anew on each row, as it is and as it is altered, so that both sides of a drop are
measured alike.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.progress import Progress
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.sources.target_run import CapturedTokens, capture_rows
from decoder.sources.training_distribution import ActivationOODDetector
from decoder.visible_tokens import ActivationSource, ReadLayers
from evaluators.measure.metrics import AlteredEstimates, ChangeMetrics
from evaluators.measure.panel import make_bootstrap, stack_control_means
from evaluators.measure.partial_results import PartialResultCache
from evaluators.measure.slices import EvalSlice
from evaluators.robustness.alterations import ALTERATIONS, AlteredRow, keep_unaltered
from evaluators.robustness.config import RobustnessConfig
from evaluators.robustness.decoy_answers import (
    estimate_own_answers,
    find_rival_answers,
    score_choices,
    tokenize_asked,
)
from evaluators.robustness.target_finetune import FineTune
from evaluators.stats.estimates import average_by_control
from trainers.data.rows import Row, read_row

_CONDITIONS = ("right", "none")
_DETECTOR_ROWS = 256
"""Training rows to which the out-of-distribution detector is fitted."""


@dataclass(frozen=True, kw_only=True)
class PairedSlice:
    """A slice of the data whose rows have a row of another control as partner.

    Attributes:
        eval_slice: the whole slice.
        rows: its rows that have a partner.
        partners: by example id.
    """

    eval_slice: EvalSlice
    rows: Sequence[Row]
    partners: Mapping[str, Row]

    @property
    def unaltered(self) -> list[AlteredRow]:
        """The rows as they are."""
        return [keep_unaltered(row) for row in self.rows]

    def controls(self, indices: Sequence[int]) -> np.ndarray:
        """Return the control [N] of each question of the rows at `indices`."""
        rows = [self.rows[i] for i in indices]
        return np.array([row.conversation.control_id for row in rows for _ in row.questions])


@dataclass(frozen=True, kw_only=True)
class _ChangedLosses:
    """The losses of a slice's rows under one change.

    Attributes:
        indices: the rows that could be measured.
        losses: by condition, of each of these rows the answer loss of each question.
        moved: see `ChangeMetrics`.
        out_of_distribution: see `ChangeMetrics`.
    """

    indices: tuple[int, ...]
    losses: dict[str, list[list[float]]]
    moved: float | None
    out_of_distribution: float | None

    def by_control(self, paired: PairedSlice) -> dict[str, np.ndarray]:
        """Average the losses [C] of each control, by condition."""
        controls = paired.controls(self.indices)
        return {
            name: average_by_control(np.array([x for row in losses for x in row]), controls)[1]
            for name, losses in self.losses.items()
        }


class ChangeEvaluator:
    """Measures how much a decoder loses by altered rows and by a fine-tuned target."""

    def __init__(
        self,
        decoder: Decoder,
        store: ActivationSource,
        config: RobustnessConfig,
        cache: PartialResultCache,
        *,
        slices: int,
        progress: Progress,
    ) -> None:
        """Prepare the evaluation of slices.

        Args:
            decoder: stays as it is.
            store: source of training activations.
            config: the changes.
            cache: keeps results that were measured before.
            slices: their number.
            progress: receives finished changes; the rows as they are count as one.
        """
        self._decoder = decoder
        self._store = store
        self._config = config
        self._cache = cache
        self._layers = decoder.select_layers()
        self._progress = progress
        self._done = 0
        self._total = slices * (1 + len(config.alterations) + len(config.strengths))

    def evaluate_alterations(
        self, paired: PairedSlice
    ) -> tuple[dict[str, ChangeMetrics], dict[str, np.ndarray]]:
        """Measure every alteration of a slice.

        Returns:
            Metrics by alteration, and the plain losses [C] of each control by condition.
        """
        base = self._measure_plain(paired)
        self._advance()
        found: dict[str, ChangeMetrics] = {}
        for name in self._config.alterations:
            altered = [
                ALTERATIONS[name](row, paired.partners[row.example_id], self._config.seed)
                for row in paired.rows
            ]
            changed = self._measure_change(paired, name, altered)
            self._advance()
            found[name] = self._compare(paired, base, changed)
            if name == "decoy":
                own_answer = self._measure_own_answers(paired, altered)
                found[name] = found[name].model_copy(update={"own_answer": own_answer})
        return found, base.by_control(paired)

    def evaluate_shifts(self, paired: PairedSlice, tuned: FineTune) -> dict[str, ChangeMetrics]:
        """Measure every strength of a fine-tuned target."""
        base = self._measure_plain(paired)
        found = {}
        for strength in self._config.strengths:
            name = f"shift:{strength:g}"
            changed = self._measure_change(paired, name, paired.unaltered, tuned, strength)
            self._advance()
            found[name] = self._compare(paired, base, changed)
        return found

    def _advance(self) -> None:
        self._done += 1
        self._progress(self._done, self._total, "changes")

    def _measure_plain(self, paired: PairedSlice) -> _ChangedLosses:
        return self._measure_change(paired, "plain", paired.unaltered)

    def _measure_change(
        self,
        paired: PairedSlice,
        name: str,
        altered: Sequence[AlteredRow],
        tuned: FineTune | None = None,
        strength: float = 0.0,
    ) -> _ChangedLosses:
        """Measure the losses under one change, or return them from the cache."""
        subject = [
            [
                row.example_id,
                _message_texts(change),
                list(change.questions),
                [q.answer for q in row.questions],
            ]
            for row, change in zip(paired.rows, altered, strict=True)
        ]
        part = f"{paired.eval_slice.split}.{paired.eval_slice.name}.{name.replace(':', '_')}"
        (value,) = self._cache.load_or_measure(
            part, subject, lambda: [self._compute_losses(paired, altered, tuned, strength)]
        )
        return _ChangedLosses(
            indices=tuple(value["indices"]),
            losses=value["losses"],
            moved=value.get("moved"),
            out_of_distribution=value.get("out_of_distribution"),
        )

    def _compute_losses(
        self,
        paired: PairedSlice,
        altered: Sequence[AlteredRow],
        tuned: FineTune | None,
        strength: float,
    ) -> dict[str, Any]:
        """Run the target on altered rows and compute the decoder's losses, as a JSON value."""
        decoder, layers = self._decoder, self._layers
        asked = [
            [(said, q.answer) for said, q in zip(change.questions, row.questions, strict=True)]
            for row, change in zip(paired.rows, altered, strict=True)
        ]
        turns = tokenize_asked(decoder, altered, asked)  # `excluded` counts the others
        conversations = [altered[i].conversation for i in turns]
        found: dict[str, Any] = {}
        if tuned is None:
            runs = capture_rows(decoder, conversations, layers.layers)
        else:
            with tuned.at(strength) as target:
                runs = capture_rows(decoder, conversations, layers.layers, source=target)
            found["moved"] = _mean_change(capture_rows(decoder, conversations, layers.layers), runs)
        readings: dict[int, Reading] = {}
        for i, run in zip(turns, runs, strict=True):
            view, masking = paired.rows[i].conversation.view, paired.eval_slice.masking
            reading = run.visible(view, layers, masking=masking)
            if reading is not None:
                readings[i] = reading
        if tuned is not None:
            share = self._share_out_of_distribution(paired.eval_slice, list(readings.values()))
            found["out_of_distribution"] = share
        read = [turns[i] for i in readings]
        inputs = {
            "right": list(readings.values()),
            "none": [replace(reading, vectors=None) for reading in readings.values()],
        }
        losses = {name: compute_turn_losses(decoder, each, read) for name, each in inputs.items()}
        return {"indices": list(readings), "losses": losses, **found}

    def _share_out_of_distribution(
        self, eval_slice: EvalSlice, readings: Sequence[Reading]
    ) -> float | None:
        """Compute the share of readings that are flagged; None where that cannot be told."""
        first = ReadLayers(self._layers.layers[:1])
        training = [
            read_row(self._store, row, first, masking=eval_slice.masking).array
            for row in eval_slice.train[:_DETECTOR_ROWS]
        ]
        known = [vectors for vectors in training if vectors is not None]
        if len(known) < 2:
            return None
        detector = ActivationOODDetector(known, seed=self._config.seed)
        scores = [detector.score(v[: r.n]) for r in readings if (v := r.array) is not None]
        flags = [s.out_of_distribution for s in scores if s.out_of_distribution is not None]
        return float(np.mean(flags)) if flags else None

    def _compare(
        self, paired: PairedSlice, base: _ChangedLosses, changed: _ChangedLosses
    ) -> ChangeMetrics:
        """Estimate the losses as they are, as they are altered, and what the change costs."""
        both = [i for i in base.indices if i in set(changed.indices)]
        values = {}
        for side, measured in (("plain", base), ("altered", changed)):
            position = {i: n for n, i in enumerate(measured.indices)}
            for name in _CONDITIONS:
                losses = [measured.losses[name][position[i]] for i in both]
                values[f"{side} {name}"] = np.array([x for row in losses for x in row])
        means = stack_control_means(values, paired.controls(both))
        estimate = make_bootstrap(means, self._config.rows)
        missing = len(paired.eval_slice.rows) - len(both)
        # columns: plain right, plain none, altered right, altered none
        return ChangeMetrics(
            right=AlteredEstimates(
                plain=estimate(lambda m: m[..., 0]),
                altered=estimate(lambda m: m[..., 2]),
                drop=estimate(lambda m: m[..., 2] - m[..., 0]),
            ),
            none_minus_right=AlteredEstimates(
                plain=estimate(lambda m: m[..., 1] - m[..., 0]),
                altered=estimate(lambda m: m[..., 3] - m[..., 2]),
                drop=estimate(lambda m: m[..., 1] - m[..., 0] - m[..., 3] + m[..., 2]),
            ),
            moved=changed.moved,
            out_of_distribution=changed.out_of_distribution,
            excluded={"unpaired_or_unwritable": missing} if missing else {},
        )

    def _measure_own_answers(
        self, paired: PairedSlice, altered: Sequence[AlteredRow]
    ) -> AlteredEstimates | None:
        """Measure how often the row's own answer is likelier than its decoy's."""
        rows, eval_slice = paired.rows, paired.eval_slice
        pairs = [find_rival_answers(row, paired.partners[row.example_id]) for row in rows]
        sides = {"plain": paired.unaltered, "altered": list(altered)}
        scores = {}
        for side, changes in sides.items():
            part = f"{eval_slice.split}.{eval_slice.name}.decoy_answers_{side}"
            subject = [
                [row.example_id, [list(pair) for pair in own], _message_texts(change)]
                for row, own, change in zip(rows, pairs, changes, strict=True)
            ]
            score = functools.partial(
                score_choices, self._decoder, rows, changes, pairs, masking=eval_slice.masking
            )
            scores[side] = self._cache.load_or_measure(part, subject, score)
        controls = [row.conversation.control_id for row in rows]
        return estimate_own_answers(scores["plain"], scores["altered"], controls, self._config)


def _message_texts(altered: AlteredRow) -> list[list[str]]:
    return [[message.role, message.content] for message in altered.messages]


def _mean_change(before: Sequence[CapturedTokens], after: Sequence[CapturedTokens]) -> float:
    """Average over tokens the change of an activation, as a share of its norm."""
    shares = []
    for one, other in zip(before, after, strict=True):
        for layer, vectors_TD in one.vectors.items():
            change_T = np.linalg.norm(other.vectors[layer] - vectors_TD, axis=1)
            shares.append(change_T / np.linalg.norm(vectors_TD, axis=1).clip(1e-6))
    return float(np.concatenate(shares).mean()) if shares else 0.0
