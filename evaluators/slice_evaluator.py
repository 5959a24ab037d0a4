"""The evaluation of one slice of the data: the panel, its groups, written answers, identification.

Each result is cached as soon as it is measured, so that an interrupted evaluation resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.progress import Progress
from core.records.tables import Conversation
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource, ReadLayers
from evaluators.answers.answer_quality import measure_answers, measure_generic
from evaluators.answers.written import write_answers
from evaluators.breakdowns import (
    answers_by_group,
    items_by_group,
    label_groups,
    panel_by_group,
)
from evaluators.config import EvaluateConfig
from evaluators.identification.choice_items import ChoiceItem, make_items
from evaluators.identification.identify import CONDITIONS as IDENTIFICATION_CONDITIONS
from evaluators.identification.identify import (
    OptionLosses,
    choice_item_rows,
    measure_identification,
)
from evaluators.identification.option_losses import compute_option_losses
from evaluators.measure.arms import EvalArm, make_arms
from evaluators.measure.conditions import (
    CONDITIONS,
    NEED_SWAPS,
    EvalContext,
    pair_with_other_controls,
)
from evaluators.measure.conditions.swapped import SWAPPED
from evaluators.measure.control_effect import estimate_effect, measure_control_effects
from evaluators.measure.losses import compute_question_losses
from evaluators.measure.metrics import PanelMetrics, SliceMetrics
from evaluators.measure.panel import RIVALS, UNTRAINED, measure_panel
from evaluators.measure.partial_results import PartialResultCache
from evaluators.measure.result_files import ANSWERS_FILE, ITEMS_FILE, LOSSES_FILE, RESULTS_FILE
from evaluators.measure.result_rows import WHOLE, loss_rows, result_rows
from evaluators.measure.slices import EvalSlice
from trainers.data.contrast import find_stored_swaps
from trainers.data.rows import Row, tokenize_questions


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSources:
    """What every slice is evaluated with.

    Attributes:
        store: source of activations.
        decoder: the trained decoder, to which the baselines' adapters were added.
        layers: what it reads.
        table: every conversation, by which controls are paired for swapping.
        foreign: whether the store is another target's.
    """

    store: ActivationSource
    decoder: Decoder
    layers: ReadLayers
    table: Sequence[Conversation]
    foreign: bool = False


@dataclass(frozen=True, kw_only=True)
class SliceResult:
    """What was measured on a slice: its metrics, and its rows of each Parquet file."""

    eval_slice: EvalSlice
    metrics: SliceMetrics
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _MeasuredRows:
    """The rows of a slice that can be measured, and the context of their conditions.

    Attributes:
        subject: what a result of this slice is measured on, as a JSON value.
    """

    eval_slice: EvalSlice
    rows: list[Row]
    context: EvalContext
    subject: Any

    @property
    def controls(self) -> np.ndarray:
        """Control [N] of each question."""
        return np.array([r.conversation.control_id for r in self.rows for _ in r.questions])


@dataclass(frozen=True, kw_only=True)
class _GroupResults:
    """Metrics of groups, and the rows of a Parquet file behind them."""

    groups: Mapping[str, Any]
    rows: list[dict[str, Any]]


class _ResultCounter:
    """Counts measured results for a progress bar."""

    def __init__(self, per_slice: int, slices: int, progress: Progress) -> None:
        self._per_slice = per_slice
        self._total = per_slice * slices
        self._progress = progress
        self._done = 0
        self._slices = 0

    def advance(self) -> None:
        """Count one result towards the progress."""
        self._done += 1
        self._progress(self._done, self._total, "conditions")

    def finish_slice(self) -> None:
        """Count the remaining results of a slice as done, which it does not have."""
        self._slices += 1
        if self._done < self._slices * self._per_slice:
            self._done = self._slices * self._per_slice - 1
            self.advance()


class SliceEvaluator:
    """Evaluates slices with one decoder and store."""

    def __init__(
        self,
        sources: EvalSources,
        config: EvaluateConfig,
        cache: PartialResultCache,
        *,
        slices: int,
        progress: Progress,
    ) -> None:
        """Prepare the evaluation of slices.

        Args:
            sources: what they are evaluated with.
            config: what is measured.
            cache: keeps results that were measured before.
            slices: their number.
            progress: receives measured results.
        """
        self._sources = sources
        self._store, self._decoder = sources.store, sources.decoder
        self._config = config
        self._cache = cache
        reasons = {
            name: CONDITIONS[name].why_unavailable(sources.store, sources.layers)
            for name in config.conditions
        }
        self._unavailable = {name: why for name, why in reasons.items() if why is not None}
        conditions = [name for name in config.conditions if name not in self._unavailable]
        self._arms = make_arms(self._decoder, (*conditions, *UNTRAINED, *config.baselines))
        # `text` knows the control: it says nothing about chance
        rivals = [name for name in config.baselines if name in RIVALS]
        chosen = (*IDENTIFICATION_CONDITIONS, *rivals) if config.identification else ()
        self._identification_arms = make_arms(self._decoder, chosen)
        per_slice = 1 + len(self._arms) + (config.answers > 0) + len(self._identification_arms)
        self._counter = _ResultCounter(per_slice, slices, progress)

    def evaluate(self, eval_slice: EvalSlice) -> SliceResult:
        """Measure the panel, its groups, and what else was asked for."""
        config = self._config
        partners = pair_with_other_controls(
            eval_slice.rows,
            eval_slice.pool,
            self._store,
            masking=eval_slice.masking,
            seed=config.seed,
        )
        paired = [row for row in eval_slice.rows if row.example_id in partners]
        swaps = self._find_swaps(eval_slice)
        swapped = [row for row in paired if row.example_id in swaps]
        rows = swapped or paired
        about = self._describe(eval_slice, paired, swapped)
        names = [name for name in self._arms if swapped or name not in NEED_SWAPS]
        if not rows:
            self._counter.finish_slice()
            nothing = measure_panel({name: np.zeros(0) for name in names}, np.zeros(0), config)
            return SliceResult(
                eval_slice=eval_slice, metrics=SliceMetrics(**dict(nothing), **about)
            )
        measured = self._prepare(eval_slice, rows, partners, swaps)
        losses = {name: self._measure_losses(measured, name) for name in names}
        flat = {name: np.array([x for row in each for x in row]) for name, each in losses.items()}
        panel = measure_panel(flat, measured.controls, config, self._count_answer_tokens(rows))
        more: dict[str, Any] = {}
        effects = self._measure_control_effects(measured)
        if effects:
            more["control_effect"] = estimate_effect(effects, rows, config)
        tables = {LOSSES_FILE: list(loss_rows(rows, losses, effects))}
        asked = tables[LOSSES_FILE][: len(measured.controls)]  # a condition's rows are in order
        groups = panel_by_group(flat, measured.controls, label_groups(asked), config)
        if config.answers:
            more["answers"], answered = self._measure_answers(measured)
            more["generic"] = measure_generic(answered.rows, config)
            tables[ANSWERS_FILE] = answered.rows
            groups = _merge(groups, "answers", answered.groups)
        if config.identification:
            more["identification"], identified = self._measure_identification(measured)
            tables[ITEMS_FILE] = identified.rows
            groups = _merge(groups, "identification", identified.groups)
        whole = panel.model_copy(update=more)
        tables[RESULTS_FILE] = [
            row
            for group, own in {WHOLE: whole, **groups}.items()
            for row in result_rows(group, own, min_controls=config.min_controls)
        ]
        self._counter.finish_slice()
        metrics = SliceMetrics(**dict(whole), **about)
        return SliceResult(eval_slice=eval_slice, metrics=metrics, tables=tables)

    def _describe(
        self, eval_slice: EvalSlice, paired: Sequence[Row], swapped: Sequence[Row]
    ) -> dict[str, Any]:
        """Tell what was not measured, and whether the store is another target's."""
        excluded = {
            "no_other_control": len(eval_slice.rows) - len(paired),
            "no_swapped_row": len(paired) - len(swapped) if swapped else 0,
            "unwritable": eval_slice.unwritable,
        }
        left_out = {str(name): why for name, why in self._unavailable.items()}
        if eval_slice.masking and not swapped and SWAPPED.name in self._arms:
            left_out[SWAPPED.name] = "the store has no swapped rows here (dump.swapped)"
        return {
            "excluded": {reason: count for reason, count in excluded.items() if count},
            "left_out": left_out or None,
            "foreign_target": True if self._sources.foreign else None,
        }

    def _find_swaps(self, eval_slice: EvalSlice) -> dict[str, str]:
        """Find the swapped row of each row of a masked slice; none where nothing is hidden."""
        if not eval_slice.masking or SWAPPED.name not in self._arms:
            return {}
        split, view = eval_slice.split, eval_slice.name
        found = find_stored_swaps(self._sources.table, self._store, split, view)
        return {row: swap.swapped.example_id for row, swap in found.items()}

    def _prepare(
        self,
        eval_slice: EvalSlice,
        rows: list[Row],
        partners: dict[str, Row],
        swaps: dict[str, str],
    ) -> _MeasuredRows:
        context = EvalContext(
            self._store,
            self._sources.layers,
            masking=eval_slice.masking,
            seed=self._config.seed,
            partners=partners,
            swaps=swaps,
            train=eval_slice.train or rows,
        )
        subject = [
            [
                row.example_id,
                partners[row.example_id].example_id,
                swaps.get(row.example_id),
                [[q.question, q.answer] for q in row.questions],
            ]
            for row in rows
        ]
        return _MeasuredRows(eval_slice=eval_slice, rows=rows, context=context, subject=subject)

    def _count_answer_tokens(self, rows: Sequence[Row]) -> np.ndarray:
        """Count the tokens [N] of each question's answer, end of turn included."""
        turns = [turn for row in rows for turn in tokenize_questions(self._decoder.prompt, row)]
        return np.array([turn.answer.sum() for turn in turns])

    def _measure_losses(self, measured: _MeasuredRows, name: str) -> list[list[float]]:
        """Compute the answer losses of each row's questions in one arm."""
        return self._in_arm(
            self._arms[name],
            measured,
            name,
            lambda readings: compute_question_losses(self._decoder, measured.rows, readings),
        )

    def _in_arm(
        self,
        arm: EvalArm,
        measured: _MeasuredRows,
        name: str,
        compute: Callable[[list[Reading]], list[list[float]]],
        about: Any = None,
    ) -> list[list[float]]:
        """Compute something from the inputs of an arm, with its decoder, or take it as cached."""

        def measure() -> list[list[float]]:
            readings = [arm.read(row, measured.context) for row in measured.rows]
            with arm.activate():
                return compute(readings)

        return self._cached(measured, name, measure, about)

    def _measure_control_effects(self, measured: _MeasuredRows) -> dict[str, float]:
        """Measure how firmly the target holds each row's control; empty where it cannot be told."""
        if not self._config.control_effect or self._sources.foreign or not measured.context.swaps:
            return {}

        def measure() -> list[list[Any]]:
            swaps, store, decoder = measured.context.swaps, self._store, self._decoder
            rows = [row.conversation for row in measured.rows if row.example_id in swaps]
            table = [row for row in self._sources.table if row.example_id in store]
            with decoder.without_adapter():
                found = measure_control_effects(
                    decoder.net,
                    decoder.tokenizer,
                    rows,
                    table,
                    longest=decoder.shape.max_positions,
                )
            return [[example, nats] for example, nats in found.items()]

        return dict(self._cached(measured, "control_effect", measure))

    def _measure_answers(self, measured: _MeasuredRows) -> tuple[Any, _GroupResults]:
        """Write answers and measure them."""
        written = self._cached(
            measured,
            "answers",
            lambda: write_answers(self._decoder, measured.rows, measured.context, self._config),
        )
        groups = answers_by_group(written, self._config)
        return measure_answers(written, self._config), _GroupResults(groups=groups, rows=written)

    def _measure_identification(self, measured: _MeasuredRows) -> tuple[Any, _GroupResults]:
        """Measure identification of the slice and of its groups."""
        config, rows = self._config, measured.rows
        items, left_out = make_items(
            rows, measured.eval_slice.pool, options=config.identification, seed=config.seed
        )
        losses = {
            name: self._measure_options(measured, name, items)
            for name in self._identification_arms
            # where something is hidden, a row is compared with its swapped self
            if name != ("other" if measured.context.swaps else SWAPPED.name)
        }
        made = choice_item_rows(items, losses, rows)
        asked = made[: len(items)]  # a condition's rows are in order
        controls = [row["control_id"] for row in asked]
        found = measure_identification(losses, controls, left_out, config)
        groups = items_by_group(asked, losses, config)
        return found, _GroupResults(groups=groups, rows=made)

    def _measure_options(
        self, measured: _MeasuredRows, name: str, items: Sequence[ChoiceItem]
    ) -> OptionLosses:
        """Compute the losses of each item's options in one arm."""
        return self._in_arm(
            self._identification_arms[name],
            measured,
            f"identify_{name}",
            lambda readings: compute_option_losses(self._decoder, measured.rows, items, readings),
            [[item.row, item.question.question, list(item.options)] for item in items],
        )

    def _cached(
        self,
        measured: _MeasuredRows,
        name: str,
        measure: Callable[[], list[Any]],
        about: Any = None,
    ) -> list[Any]:
        """Return a cached result; measure and cache it where there is none."""
        name = f"{measured.eval_slice.split}.{measured.eval_slice.name}.{name}"
        subject = measured.subject if about is None else [measured.subject, about]
        values = self._cache.load_or_measure(name, subject, measure)
        self._counter.advance()
        return values


def _merge(
    groups: Mapping[str, PanelMetrics], name: str, found: Mapping[str, Any]
) -> dict[str, PanelMetrics]:
    """Add metrics of groups, under `name`, to the groups' panels."""
    added = {group: groups[group].model_copy(update={name: each}) for group, each in found.items()}
    return {**groups, **added}
