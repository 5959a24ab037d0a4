"""The step `robustness`: does the decoder still read a row when something about it is changed?

The target runs anew on each row, as it is and as it is altered, so that both sides of a drop are
measured alike; the decoder stays as it is. A drop is paired by control, and above zero where the
change does harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.target.load import pick_device, shape_of, use_threads
from activation_store.target.quiet import quiet_libraries
from activation_store.target.tokens import tokenize
from core.errors import DataError
from core.files import storage_errors, write_json
from core.progress import Progress, silent
from core.runtime import Runtime
from decoder.live import LiveActivations
from decoder.model import Decoder
from decoder.prompt import Turn
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.step_inputs import StepInputs
from decoder.target_run import CapturedConversation, capture
from decoder.training_distribution import ActivationOODDetector
from decoder.visible_tokens import ActivationSource, ReadLayers
from evaluators.measure.conditions import pair_others
from evaluators.measure.measured_parts import PartialResultCache
from evaluators.measure.panel import columns, sampler
from evaluators.measure.result_files import RESULTS, RESULTS_FILE, ROBUSTNESS_FILE, write_table
from evaluators.measure.results import robustness_rows
from evaluators.measure.row_selection import EvalSlice, select_slices, writable
from evaluators.robustness.alterations import ALTERATIONS, Altered, plain
from evaluators.robustness.config import RobustnessConfig
from evaluators.robustness.decoy_answers import choices, own_answers, rival_answers
from evaluators.robustness.held_out import held_out
from evaluators.robustness.target_finetune import FineTune
from evaluators.stats.estimates import Estimate, over_controls
from trainers.rows import Row, load_rows, read_row

_SIDES = ("right", "none")
_KNOWN = 256
"""Training rows that tell what is familiar."""


def robustness(
    inputs: StepInputs,
    decoder: Path,
    out: Path,
    work: Path,
    *,
    config: RobustnessConfig,
    runtime: Runtime,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure what each alteration, and each strength of a fine-tuned target, costs the decoder.

    What was measured is kept in `work`; a run that was stopped goes on.

    Args:
        inputs: tables, store (which says which rows have activations) and target.
        decoder: folder of the decoder.

    Returns:
        {"views": {SPLIT: {VIEW: {CHANGE: {"right", "gain": {"plain", "altered", "drop"},
        "own_answer" (of a decoy), "moved", "out_of_distribution" (of a fine-tune), "excluded"}}}},
        "held_out": {VIEW: {"right", "gain": {"test", "test_ood", "drop"}}}, "fine_tune":
        {"losses"} or None}. CHANGE is an alteration, or `shift:STRENGTH`. `right` is the answer
        loss, `gain` that of `none` less it, both in nats a token; `own_answer` the share of
        questions where the row's answer is likelier than the decoy's; `moved` how far activations
        went, as a share of their length; `out_of_distribution` the share of rows that lie
        outside of what the decoder was trained on
        (decoder/training_distribution.py). All numbers are rows too, in
        `out`.

    Raises:
        DataError: none of the splits has a row.
        StoreError: decoder, store and model do not belong together.
    """
    use_threads(runtime)
    opened = inputs.open_activations(runtime)
    with quiet_libraries():
        reader = Decoder.load(decoder, inputs.model, dtype="float32", device=pick_device(runtime))
    if isinstance(opened, LiveActivations):
        opened.attach_decoder(reader)
    rows, _, lacking = writable(
        load_rows(inputs.conversations, inputs.questions, opened), reader.prompt, config.rows
    )
    cases = select_slices(rows, config.rows, reader.config.masking, lacking)
    if not cases:
        raise DataError(
            f"robustness: no row in splits {', '.join(config.splits)} and views "
            f"{', '.join(config.views)}; change robustness.splits or data.splits."
        )
    measure = _Measure(reader, opened, config, PartialResultCache(work))
    measure.count_steps(len(cases), progress)
    views: dict[str, dict[str, Any]] = {}
    with storage_errors(out):
        plain_losses = {}
        ready = [
            (
                case,
                pair_others(case.rows, case.pool, opened, masking=case.masking, seed=config.seed),
            )
            for case in cases
        ]
        for case, others in ready:
            found, plain_losses[case.split, case.name] = measure.alterations(case, others)
            views.setdefault(case.split, {})[case.name] = found
        tuned = None
        if config.strengths:
            learned = [row for row in rows if row.conversation.split == "train"]
            tuned = FineTune(reader, _texts(reader, learned, config), config)
            for case, others in ready:
                views[case.split][case.name] |= measure.shifts(case, others, tuned)
            tuned.remove()
        tree = {
            "views": views,
            "held_out": held_out(plain_losses, config),
            "fine_tune": None if tuned is None else {"losses": list(tuned.losses)},
        }
        write_json(out / ROBUSTNESS_FILE, tree)
        numbers = robustness_rows(tree, least=config.min_controls)
        write_table(out / RESULTS_FILE, numbers, RESULTS)
    return tree


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The rows of a case under one change, with what they gave.

    Attributes:
        index: which of the case's rows these are.
        losses: answer loss of each question by side, a list a row.
    """

    index: tuple[int, ...]
    losses: dict[str, list[list[float]]]
    more: dict[str, Any]


class _Measure:
    """Measures cases with one decoder."""

    def __init__(
        self,
        decoder: Decoder,
        store: ActivationSource,
        config: RobustnessConfig,
        parts: PartialResultCache,
    ) -> None:
        self._decoder = decoder
        self._store = store
        self._config = config
        self._parts = parts
        self._layers = decoder.select_layers()
        shape = shape_of(decoder.net.get_base_model().config, decoder.binding.model)
        self._longest = shape.max_positions
        self._steps: Iterator[None] = iter(())

    def count_steps(self, cases: int, progress: Progress) -> None:
        """Tell `progress` of each change that is done; the rows as they are count as one."""
        total = cases * (1 + len(self._config.alterations) + len(self._config.strengths))

        def steps() -> Iterator[None]:
            for done in range(1, total + 1):
                progress(done, total, "changes")
                yield

        self._steps = steps()

    def alterations(
        self, case: EvalSlice, others: Mapping[str, Row]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Every alteration of a case, and its plain losses [C] by side."""
        rows = _rows(case, others)
        base = self._run(case, rows, "plain", [plain(row) for row in rows])
        found: dict[str, Any] = {}
        for name in self._config.alterations:
            altered = [
                ALTERATIONS[name](row, others[row.example_id], self._config.seed) for row in rows
            ]
            run = self._run(case, rows, name, altered)
            found[name] = self._drops(case, rows, base, run)
            if name == "decoy":
                found[name]["own_answer"] = self._own_answer(case, rows, altered, others)
        return found, _by_control(rows, base)

    def shifts(self, case: EvalSlice, others: Mapping[str, Row], tuned: FineTune) -> dict[str, Any]:
        """Every strength of a fine-tuned target."""
        rows = _rows(case, others)
        base = self._run(case, rows, "plain", [plain(row) for row in rows], counted=False)
        found = {}
        for strength in self._config.strengths:
            name = f"shift:{strength:g}"
            run = self._run(case, rows, name, [plain(row) for row in rows], tuned, strength)
            found[name] = {**self._drops(case, rows, base, run), **run.more}
        return found

    def _run(
        self,
        case: EvalSlice,
        rows: Sequence[Row],
        name: str,
        altered: Sequence[Altered],
        tuned: FineTune | None = None,
        strength: float = 0.0,
        *,
        counted: bool = True,
    ) -> _Run:
        """The losses under one change, from the parts where they are there."""
        subject = [
            [row.example_id, _said(own), list(own.questions), [q.answer for q in row.questions]]
            for row, own in zip(rows, altered, strict=True)
        ]
        part = f"{case.split}.{case.name}.{name.replace(':', '_')}"
        kept = self._parts.load(part, subject)
        if kept is None:
            kept = [self._measure(case, rows, altered, tuned, strength)]
            self._parts.keep(part, subject, kept)
        if counted:
            next(self._steps)
        (value,) = kept
        return _Run(index=tuple(value["index"]), losses=value["losses"], more=value["more"])

    def _measure(
        self,
        case: EvalSlice,
        rows: Sequence[Row],
        altered: Sequence[Altered],
        tuned: FineTune | None,
        strength: float,
    ) -> dict[str, Any]:
        written = self._written(rows, altered)
        index = list(written)
        said = [altered[i].messages for i in index]
        more: dict[str, Any] = {}
        if tuned is None:
            runs = capture(self._decoder, said, self._layers.layers)
        else:
            with tuned.at(strength) as source:
                runs = capture(self._decoder, said, self._layers.layers, source=source)
            more["moved"] = _moved(capture(self._decoder, said, self._layers.layers), runs)
        readings = [
            run.visible(rows[i].conversation.view, self._layers, masking=case.masking)
            for i, run in zip(index, runs, strict=True)
        ]
        seen = [place for place, reading in enumerate(readings) if reading is not None]
        given = [reading for reading in readings if reading is not None]
        if tuned is not None:
            more["out_of_distribution"] = _share_out_of_distribution(self._known(case), given)
        index = [index[place] for place in seen]
        turns = [written[i] for i in index]
        return {
            "index": index,
            "losses": {
                "right": compute_turn_losses(self._decoder, given, turns),
                "none": compute_turn_losses(
                    self._decoder, [replace(reading, vectors=None) for reading in given], turns
                ),
            },
            "more": more,
        }

    def _known(self, case: EvalSlice) -> ActivationOODDetector | None:
        """What the decoder was trained on of such a view; None for fewer than two rows."""
        first = ReadLayers(self._layers.layers[:1])
        rows = [
            read_row(self._store, row, first, masking=case.masking) for row in case.train[:_KNOWN]
        ]
        found = [reading.vectors for reading in rows if reading.vectors is not None]
        return ActivationOODDetector(found, seed=self._config.seed) if len(found) > 1 else None

    def _written(self, rows: Sequence[Row], altered: Sequence[Altered]) -> dict[int, list[Turn]]:
        """The turns of each row that the chat template can write, by the row's index."""
        found = {}
        for i, (row, own) in enumerate(zip(rows, altered, strict=True)):
            try:
                tokens = tokenize(self._decoder.tokenizer, own.messages)
                if len(tokens.ids) > self._longest:
                    continue
                found[i] = [
                    self._decoder.prompt.turn(asked, question.answer)
                    for asked, question in zip(own.questions, row.questions, strict=True)
                ]
            except DataError:
                continue  # `excluded` counts what has no losses
        return found

    def _drops(self, case: EvalSlice, rows: Sequence[Row], base: _Run, run: _Run) -> dict[str, Any]:
        """Loss and gain as they are, as they are altered, and what the change costs."""
        both = [i for i in base.index if i in set(run.index)]
        values = {}
        for side, own in (("plain", base), ("altered", run)):
            place = {i: n for n, i in enumerate(own.index)}
            for name in _SIDES:
                losses = [own.losses[name][place[i]] for i in both]
                values[f"{side} {name}"] = np.array([x for each in losses for x in each])
        controls = np.array(
            [rows[i].conversation.control_id for i in both for _ in rows[i].questions]
        )
        estimate = sampler(columns(values, controls), self._config.rows)
        out: dict[str, Any] = {
            "right": {
                "plain": estimate(lambda m: m[..., 0]),
                "altered": estimate(lambda m: m[..., 2]),
                "drop": estimate(lambda m: m[..., 2] - m[..., 0]),
            },
            "gain": {
                "plain": estimate(lambda m: m[..., 1] - m[..., 0]),
                "altered": estimate(lambda m: m[..., 3] - m[..., 2]),
                "drop": estimate(lambda m: m[..., 1] - m[..., 0] - m[..., 3] + m[..., 2]),
            },
            "excluded": {},
        }
        if left_out := len(case.rows) - len(both):
            out["excluded"] = {"unpaired_or_unwritable": left_out}
        return out

    def _own_answer(
        self,
        case: EvalSlice,
        rows: Sequence[Row],
        altered: Sequence[Altered],
        others: Mapping[str, Row],
    ) -> dict[str, Estimate] | None:
        """How often the row's own answer is likelier than its decoy's."""
        pairs = [rival_answers(row, others[row.example_id]) for row in rows]
        scored = {}
        for side, said in (("plain", [plain(row) for row in rows]), ("altered", list(altered))):
            part = f"{case.split}.{case.name}.decoy_answers_{side}"
            subject = [
                [row.example_id, [list(pair) for pair in own], _said(each)]
                for row, own, each in zip(rows, pairs, said, strict=True)
            ]
            kept = self._parts.load(part, subject)
            if kept is None:
                kept = choices(self._decoder, rows, said, pairs, masking=case.masking)
                self._parts.keep(part, subject, kept)
            scored[side] = kept
        controls = [row.conversation.control_id for row in rows]
        return own_answers(scored["plain"], scored["altered"], controls, self._config)


def _rows(case: EvalSlice, others: Mapping[str, Row]) -> list[Row]:
    return [row for row in case.rows if row.example_id in others]


def _said(altered: Altered) -> list[list[str]]:
    return [[message.role, message.content] for message in altered.messages]


def _by_control(rows: Sequence[Row], run: _Run) -> dict[str, np.ndarray]:
    """Losses [C] of each control by side, and none of a case without rows."""
    controls = np.array(
        [rows[i].conversation.control_id for i in run.index for _ in rows[i].questions]
    )
    return {
        name: over_controls(np.array([x for own in run.losses[name] for x in own]), controls)[1]
        for name in _SIDES
    }


def _moved(before: Sequence[CapturedConversation], after: Sequence[CapturedConversation]) -> float:
    """Mean over tokens of the change of an activation, as a share of its length."""
    shares = []
    for one, other in zip(before, after, strict=True):
        for layer, vectors_TD in one.vectors.items():
            change_T = np.linalg.norm(other.vectors[layer] - vectors_TD, axis=1)
            shares.append(change_T / np.linalg.norm(vectors_TD, axis=1).clip(1e-6))
    return float(np.concatenate(shares).mean()) if shares else 0.0


def _share_out_of_distribution(
    known: ActivationOODDetector | None, readings: Sequence[Reading]
) -> float | None:
    """Share of readings that lie outside of what the decoder was trained on; None where that
    cannot be told."""
    if known is None:
        return None
    verdicts = [known.score(r.vectors[: r.n]) for r in readings if r.vectors is not None]
    flags = [own.out_of_distribution for own in verdicts if own.out_of_distribution is not None]
    return float(np.mean(flags)) if flags else None


def _texts(decoder: Decoder, rows: Sequence[Row], config: RobustnessConfig) -> list[np.ndarray]:
    """Token ids of the training split's conversations, which the target could be tuned on.

    Raises:
        DataError: there are none.
    """
    texts = []
    for row in rows:
        try:
            texts.append(tokenize(decoder.tokenizer, row.conversation.messages).ids)
        except DataError:
            continue  # the dump has counted it
    if not texts:
        raise DataError("robustness: no training row to fine-tune on; change data.splits.")
    return texts
