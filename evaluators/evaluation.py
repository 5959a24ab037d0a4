"""The step `evaluate`: does the decoder read? Losses under every condition, gains, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.read.reader import ActivationStore
from activation_store.target.load import pick_device, use_threads
from activation_store.target.quiet import quiet_libraries
from core.errors import DataError
from core.files import storage_errors, write_json
from core.progress import Progress, silent
from core.runtime import Runtime
from core.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    read_conversations,
    write_dropped,
)
from core.tables import Conversation
from decoder.live import LiveActivations
from decoder.model import Decoder
from decoder.step_inputs import StepInputs
from decoder.visible_tokens import ActivationSource, ReadLayers
from evaluators.answers.answer_quality import answer_quality
from evaluators.answers.written import write_answers
from evaluators.breakdowns import UNSTATED, answers_by_group, breakdowns, items_by_group
from evaluators.config import Baseline, EvaluateConfig
from evaluators.identification.choice_items import make_items
from evaluators.identification.identify import CONDITIONS as IDENTIFIED
from evaluators.identification.identify import identification, item_rows, option_losses
from evaluators.measure.conditions import (
    CONDITIONS,
    NEED_SWAPS,
    EvalContext,
    find_swaps,
    pair_others,
)
from evaluators.measure.conditions.swapped import SWAPPED
from evaluators.measure.control_effect import estimate_effect, measure_control_effects
from evaluators.measure.foreign import open_foreign
from evaluators.measure.losses import compute_question_losses
from evaluators.measure.measured_parts import PartialResultCache
from evaluators.measure.panel import RIVALS, UNTRAINED, panel
from evaluators.measure.probes import Probe, probes
from evaluators.measure.result_files import (
    ANSWERS,
    ANSWERS_FILE,
    ITEMS,
    ITEMS_FILE,
    LOSSES,
    LOSSES_FILE,
    METRICS_FILE,
    RESULTS,
    RESULTS_FILE,
    write_table,
)
from evaluators.measure.results import WHOLE, result_rows
from evaluators.measure.row_selection import EvalSlice, select_slices, writable
from trainers.rows import Row, load_rows, tokenize_questions


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedDecoders:
    """The folders of the decoders that an evaluation compares.

    Attributes:
        decoder: the decoder itself.
        baselines: folder of each trained baseline.
    """

    decoder: Path
    baselines: Mapping[Baseline, Path] = field(default_factory=dict)


def evaluate(
    inputs: StepInputs,
    decoders: TrainedDecoders,
    out: Path,
    work: Path,
    *,
    config: EvaluateConfig,
    runtime: Runtime,
    foreign: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Judge a decoder on held-out rows.

    Each condition of each case is kept in `work` as it is done; a run that was stopped goes on.

    Args:
        inputs: tables, store and target.
        decoders: the decoder, and the trained baselines that `config` names.
        foreign: the store may be another target's of the same shape; every result then says so.

    Returns:
        {"reading": {SPLIT: {VIEW: {"answer_loss", "untrained", "grounded_gain",
        "information_gain", "below_untrained", "best_uninformed", "excluded": {reason: rows;
        `unwritable`: questions that the chat template cannot write}}}}}; where they were asked for,
        also "answers" and "identification", and "left_out" {condition: why} where the store has not
        what a condition needs. Of a foreign target each split and view has "foreign_target" True,
        and "foreign_target" beside "reading" says what differs (evaluators/measure/foreign.py).
        Written to
        `out` too, beside every single loss, the answers, the items of identification and all
        numbers as rows, groups of controls included.

    Raises:
        DataError: none of the splits has a row.
        StoreError: decoder, store and model do not belong together.
        ConfigError: `foreign` without a store.
    """
    use_threads(runtime)
    opened: ActivationStore | LiveActivations
    strange = None
    if foreign:
        opened, strange = open_foreign(inputs, runtime)
    else:
        opened = inputs.open_activations(runtime)
    with quiet_libraries():
        reader = Decoder.load(
            decoders.decoder, inputs.model, dtype="float32", device=pick_device(runtime)
        )
        for baseline in config.baselines:
            reader.add_adapter(baseline, decoders.baselines[baseline])
    if isinstance(opened, LiveActivations):
        opened.attach_decoder(reader)
    layers = reader.select_layers(config.read_layer)
    for layer in layers.layers:
        opened.only_layer(layer)
    known, unwritable, lacking = writable(
        load_rows(inputs.conversations, inputs.questions, opened), reader.prompt, config
    )
    cases = select_slices(known, config, reader.config.masking, lacking)
    if not cases:
        raise DataError(
            f"evaluate: no row in splits {', '.join(config.splits)} and views "
            f"{', '.join(config.views)}; change evaluate.splits or data.splits."
        )
    table = read_conversations(inputs.conversations / CONVERSATIONS_FILE)
    judge = _Judge(opened, reader, layers, config, work, table, foreign=strange is not None)
    judge.count_steps(len(cases), progress)
    tree: dict[str, dict[str, Any]] = {}
    judged = []
    with storage_errors(out):
        for case in cases:
            judged.append(judge(case))
            tree.setdefault(case.split, {})[case.name] = judged[-1].metrics
        for name, schema in (
            (LOSSES_FILE, LOSSES),
            (ANSWERS_FILE, ANSWERS),
            (ITEMS_FILE, ITEMS),
            (RESULTS_FILE, RESULTS),
        ):
            rows = [
                {
                    "split": one.case.split,
                    "view": one.case.name,
                    "foreign_target": strange is not None,
                    **row,
                }
                for one in judged
                for row in one.tables.get(name, ())
            ]
            write_table(out / name, rows, schema)
        if unwritable:
            write_dropped(out / DROPPED_FILE, unwritable)
        found: dict[str, Any] = {"reading": tree}
        if strange is not None:
            found["foreign_target"] = strange.to_json()
        write_json(out / METRICS_FILE, found)
    return found


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """What was measured of a case: its part of the tree, and its rows of each table."""

    case: EvalSlice
    metrics: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """The rows of a case that have a partner, and their scene.

    Attributes:
        subject: what a part of this case is measured on, as plain values.
    """

    case: EvalSlice
    rows: list[Row]
    scene: EvalContext
    subject: Any


class _PartCounter:
    """Counts the parts of an evaluation that are measured, for a progress bar."""

    def __init__(self, per_slice: int, slices: int, progress: Progress) -> None:
        self._per_slice = per_slice
        self._total = per_slice * slices
        self._progress = progress
        self._done = 0
        self._slices = 0

    def advance(self) -> None:
        """Count one part."""
        self._done += 1
        self._progress(self._done, self._total, "conditions")

    def finish_slice(self) -> None:
        """Count the parts that a slice does not have as done."""
        self._slices += 1
        if self._done < self._slices * self._per_slice:
            self._done = self._slices * self._per_slice - 1
            self.advance()


class _Judge:
    """Judges cases with one decoder and store."""

    def __init__(
        self,
        store: ActivationSource,
        decoder: Decoder,
        layers: ReadLayers,
        config: EvaluateConfig,
        work: Path,
        table: Sequence[Conversation],
        *,
        foreign: bool,
    ) -> None:
        self._store = store
        self._table = table
        self._decoder = decoder
        self._layers = layers
        self._config = config
        self._parts = PartialResultCache(work)
        self._foreign = foreign
        absent = {name: CONDITIONS[name].absent(store, layers) for name in config.conditions}
        self._left_out = {name: why for name, why in absent.items() if why is not None}
        conditions = [name for name in config.conditions if name not in self._left_out]
        self._probes = probes(decoder, (*conditions, *UNTRAINED, *config.baselines))
        # `text` knows the control: it says nothing about chance
        rivals = [name for name in config.baselines if name in RIVALS]
        chosen = (*IDENTIFIED, *rivals) if config.identification else ()
        self._identified = probes(decoder, chosen)
        self._counter = _PartCounter(0, 0, silent)

    def count_steps(self, cases: int, progress: Progress) -> None:
        """Tell `progress` of each part that is done."""
        self._counter = _PartCounter(self._parts_per_slice(), cases, progress)

    def __call__(self, case: EvalSlice) -> _Judged:
        """Panel, its groups, answers and identification of a case."""
        config = self._config
        others = pair_others(
            case.rows, case.pool, self._store, masking=case.masking, seed=config.seed
        )
        rows = [row for row in case.rows if row.example_id in others]
        swaps = self._find_swaps(case)
        swapped = [row for row in rows if row.example_id in swaps]
        excluded = {
            "no_other_control": len(case.rows) - len(rows),
            "no_swapped_row": len(rows) - len(swapped) if swapped else 0,
            "unwritable": case.unwritable,
        }
        rows = swapped or rows
        about: dict[str, Any] = {"excluded": {why: n for why, n in excluded.items() if n}}
        left_out = {str(name): why for name, why in self._left_out.items()}
        if case.masking and not swapped and SWAPPED.name in self._probes:
            left_out[SWAPPED.name] = "the store has no swapped rows here (dump.swapped)"
        if left_out:
            about["left_out"] = left_out
        names = [name for name in self._probes if swapped or name not in NEED_SWAPS]
        if self._foreign:
            about["foreign_target"] = True
        if not rows:
            self._counter.finish_slice()
            nothing = panel({name: np.zeros(0) for name in names}, np.zeros(0), config)
            return _Judged(case=case, metrics={**nothing, **about})
        measured = self._measured(case, rows, others, swaps)
        table = {name: self._losses(measured, name) for name in names}
        controls = np.array([r.conversation.control_id for r in rows for _ in r.questions])
        flat = {name: np.array([x for one in each for x in one]) for name, each in table.items()}
        metrics = panel(flat, controls, config, self._answer_tokens(rows))
        effects = self._control_effects(measured)
        if effects:
            metrics["control_effect"] = estimate_effect(effects, rows, config)
        tables = {LOSSES_FILE: list(_single(rows, table, effects))}
        groups = breakdowns(flat, controls, _labels(rows), config)
        more: list[dict[str, dict[str, Any]]] = []
        if config.answers:
            written = self._part(measured, "answers", self._write_answers)
            tables[ANSWERS_FILE] = written
            metrics["answers"] = answer_quality(written, config)
            more.append(answers_by_group(written, config))
        if config.identification:
            metrics["identification"], found, tables[ITEMS_FILE] = self._identify(measured)
            more.append(found)
        for each in more:
            for group, numbers in each.items():
                groups[group] = {**groups[group], **numbers}
        tables[RESULTS_FILE] = [
            row
            for group, numbers in {WHOLE: metrics, **groups}.items()
            for row in result_rows(group, numbers, least=config.min_controls)
        ]
        self._counter.finish_slice()
        return _Judged(case=case, metrics={**metrics, **about}, tables=tables)

    def _control_effects(self, measured: _Measured) -> dict[str, float]:
        """Measure how firmly the target holds each row's control; empty where it cannot be told."""
        if not self._config.control_effect or self._foreign or not measured.scene.swaps:
            return {}

        def measure(own: _Measured) -> list[list[Any]]:
            conversations = [row.conversation for row in own.rows]
            found = measure_control_effects(self._decoder, conversations, self._table)
            return [[example, nats] for example, nats in found.items()]

        return dict(self._part(measured, "control_effect", measure))

    def _find_swaps(self, case: EvalSlice) -> dict[str, str]:
        """Find the swapped rows of a masked slice; none where nothing is hidden."""
        if not case.masking or SWAPPED.name not in self._probes:
            return {}
        return find_swaps(self._table, self._store, case.split, case.name)

    def _answer_tokens(self, rows: Sequence[Row]) -> np.ndarray:
        """Count the tokens [N] of each question's answer, end of turn included."""
        turns = [turn for row in rows for turn in tokenize_questions(self._decoder.prompt, row)]
        return np.array([turn.answer.sum() for turn in turns])

    def _measured(
        self, case: EvalSlice, rows: list[Row], others: dict[str, Row], swaps: dict[str, str]
    ) -> _Measured:
        scene = EvalContext(
            self._store,
            self._layers,
            masking=case.masking,
            seed=self._config.seed,
            partners=others,
            swaps=swaps,
            train=case.train or rows,
        )
        subject = [
            [
                row.example_id,
                others[row.example_id].example_id,
                swaps.get(row.example_id),
                [[q.question, q.answer] for q in row.questions],
            ]
            for row in rows
        ]
        return _Measured(case=case, rows=rows, scene=scene, subject=subject)

    def _losses(self, measured: _Measured, name: str) -> list[list[float]]:
        """Answer losses of each row's questions, of one probe."""

        def measure(own: _Measured) -> list[list[float]]:
            probe = self._probes[name]
            readings = [probe.give(row, own.scene) for row in own.rows]
            with probe.under():
                return compute_question_losses(self._decoder, own.rows, readings)

        return self._part(measured, name, measure)

    def _write_answers(self, own: _Measured) -> list[dict[str, Any]]:
        return write_answers(self._decoder, own.rows, own.scene, self._config)

    def _identify(
        self, measured: _Measured
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[dict[str, Any]]]:
        """Identification of a case and of its groups, and its rows of items.parquet."""
        config, rows = self._config, measured.rows
        items, without = make_items(
            rows, measured.case.pool, options=config.identification, seed=config.seed
        )
        losses = {}
        # where something is hidden, a row is held against its swapped self
        unused = "other" if measured.scene.swaps else SWAPPED.name
        for name, probe in self._identified.items():
            if name == unused:
                continue

            def measure(own: _Measured, probe: Probe = probe) -> list[list[float]]:
                readings = [probe.give(row, own.scene) for row in rows]
                with probe.under():
                    return option_losses(self._decoder, rows, items, readings)

            about = [[item.row, item.question.question, list(item.options)] for item in items]
            losses[name] = self._part(measured, f"identify_{name}", measure, about)
        own = [rows[item.row].conversation for item in items]
        controls = [one.control_id for one in own]
        found = identification(items, losses, controls, without, config)
        groups = items_by_group(items, losses, controls, [one.kind for one in own], config)
        return found, groups, item_rows(items, losses, rows)

    def _part(
        self,
        measured: _Measured,
        name: str,
        measure: Callable[[_Measured], list[Any]],
        about: Any = None,
    ) -> list[Any]:
        """What `measure` gives, from the parts where it is there."""
        name = f"{measured.case.split}.{measured.case.name}.{name}"
        subject = measured.subject if about is None else [measured.subject, about]
        values = self._parts.load(name, subject)
        if values is None:
            values = measure(measured)
            self._parts.keep(name, subject, values)
        self._counter.advance()
        return values

    def _parts_per_slice(self) -> int:
        return 1 + len(self._probes) + (self._config.answers > 0) + len(self._identified)


def _labels(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Group of each question of `rows`, by grouping."""
    asked = [(row.conversation, question) for row in rows for question in row.questions]
    return {
        "kind": [own.kind for own, _ in asked],
        "category": [f"{own.kind}/{own.category}" for own, _ in asked],
        "type": [question.type or UNSTATED for _, question in asked],
    }


def _single(
    rows: Sequence[Row], table: dict[str, list[list[float]]], effects: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    for condition, losses in table.items():
        for row, own in zip(rows, losses, strict=True):
            for question, loss in zip(row.questions, own, strict=True):
                yield {
                    "kind": row.conversation.kind,
                    "category": row.conversation.category,
                    "control_id": row.conversation.control_id,
                    "example_id": row.example_id,
                    "question": question.question,
                    "type": question.type,
                    "condition": condition,
                    "loss": loss,
                    "control_effect": effects.get(row.example_id),
                }
