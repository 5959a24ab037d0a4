"""The step `evaluate`: does the decoder read? Losses under every condition, gains, answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.model_files import ModelFiles
from activation_store.quiet import quiet_libraries
from activation_store.reader import ActivationStore
from activation_store.runtime import Runtime
from activation_store.target import pick_device, use_threads
from decoder.asking import answer
from decoder.model import Decoder
from evaluators.conditions import Given, pair_others
from evaluators.config import EvaluateConfig
from evaluators.losses import question_losses
from evaluators.panel import UNTRAINED, panel
from evaluators.parts import Parts
from generators.errors import DataError
from generators.files import storage_errors, write_bytes, write_json
from generators.progress import Progress, silent
from generators.schema import VIEWS, View
from trainers.rows import Row, load_rows, select

METRICS_FILE = "metrics.json"
LOSSES_FILE = "losses.parquet"
ANSWERS_FILE = "answers.parquet"


@dataclass(frozen=True, kw_only=True)
class Case:
    """The rows of one split and view that are judged.

    Attributes:
        name: the view, with `+visible` where masking is off.
        pool: all rows of the split and view, from which partners are drawn.
        train: training rows of the view, for the mean token; of any view where it has none.
    """

    split: str
    name: str
    masking: bool
    rows: list[Row]
    pool: list[Row]
    train: list[Row]


def evaluate(
    conversations: Path,
    questions: Path,
    store: Path,
    decoder: Path,
    out: Path,
    work: Path,
    *,
    config: EvaluateConfig,
    model: ModelFiles,
    runtime: Runtime,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Judge a decoder on held-out rows.

    Each condition of each case is kept in `work` as it is done; a run that was stopped goes on.

    Returns:
        {SPLIT: {VIEW: {"answer_loss", "untrained", "grounded_gain", "information_gain",
        "below_untrained", "best_uninformed", "excluded": {reason: rows}}}}, also written to `out`
        beside every single loss and the sampled answers.

    Raises:
        DataError: none of the splits has a row.
        StoreError: decoder, store and model do not belong together.
    """
    use_threads(runtime)
    opened = ActivationStore(store, cache_mb=runtime.shard_cache_mb)
    opened.check_target(model.digests())
    with quiet_libraries():
        reader = Decoder.load(decoder, model, dtype="float32", device=pick_device(runtime))
    layer = opened.only_layer(reader.binding.read_layer)
    cases = _cases(load_rows(conversations, questions, opened), config, reader.config.masking)
    if not cases:
        raise DataError(
            f"evaluate: no row in splits {', '.join(config.splits)} and views "
            f"{', '.join(config.views)}; change evaluate.splits or data.splits."
        )
    judge = _Judge(opened, reader, layer, config, work, _Steps(progress, len(cases), config))
    tree: dict[str, dict[str, Any]] = {}
    losses, answers = [], []
    with storage_errors(out):
        for case in cases:
            found, rows, written = judge(case)
            tree.setdefault(case.split, {})[case.name] = found
            losses += rows
            answers += written
        _write_table(out / LOSSES_FILE, pa.Table.from_pylist(losses, _LOSSES))
        _write_table(out / ANSWERS_FILE, pa.Table.from_pylist(answers, _ANSWERS))
        write_json(out / METRICS_FILE, {"reading": tree})
    return tree


def _cases(rows: list[Row], config: EvaluateConfig, masking: bool) -> list[Case]:
    out = []
    for split in config.splits:
        for view in config.views:
            pool = select(rows, split=split, views=[view], most=None, seed=config.seed)
            if not pool:
                continue
            train = _training(rows, [view], config) or _training(rows, VIEWS, config)
            controls = dict.fromkeys(row.conversation.control_id for row in pool)
            wanted = set(list(controls)[: config.max_controls])
            own = [row for row in pool if row.conversation.control_id in wanted]
            visible = (f"{view}+visible", False)
            if view == "control":
                kinds = [(str(view), False)]
            elif not masking:
                kinds = [visible]
            else:
                kinds = [(str(view), True), *([visible] if config.visible_too else [])]
            out += [
                Case(split=split, name=name, masking=mask, rows=own, pool=pool, train=train)
                for name, mask in kinds
            ]
    return out


def _training(rows: list[Row], views: Sequence[View], config: EvaluateConfig) -> list[Row]:
    return select(rows, split="train", views=views, most=None, seed=config.seed)


class _Steps:
    """Counts the conditions that are done."""

    def __init__(self, progress: Progress, cases: int, config: EvaluateConfig) -> None:
        self._progress = progress
        self._a_case = len(config.conditions) + len(UNTRAINED) + (config.answers > 0)
        self._total = cases * self._a_case
        self._done = 0

    def __call__(self) -> None:
        self._done += 1
        self._progress(self._done, self._total, "conditions")

    def skip_case(self) -> None:
        """A case has nothing to measure."""
        self._done += self._a_case
        self._progress(self._done, self._total, "conditions")


class _Judge:
    """Judges cases with one decoder and store."""

    def __init__(
        self,
        store: ActivationStore,
        decoder: Decoder,
        layer: int,
        config: EvaluateConfig,
        work: Path,
        step: _Steps,
    ) -> None:
        self._store = store
        self._decoder = decoder
        self._layer = layer
        self._config = config
        self._parts = Parts(work)
        self._step = step

    def __call__(
        self, case: Case
    ) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """Panel, single losses and sampled answers of a case."""
        seed = self._config.seed
        others = pair_others(case.rows, case.pool, self._store, masking=case.masking, seed=seed)
        rows = [row for row in case.rows if row.example_id in others]
        left_out = len(case.rows) - len(rows)
        excluded = {"no_other_control": left_out} if left_out else {}
        names = (*self._config.conditions, *UNTRAINED)
        if not rows:
            self._step.skip_case()
            nothing = panel({name: np.zeros(0) for name in names}, np.zeros(0), self._config)
            return {**nothing, "excluded": excluded}, [], []
        partners = [others[row.example_id] for row in rows]
        given = Given(
            rows,
            partners,
            case.train or rows,
            self._store,
            self._layer,
            masking=case.masking,
            seed=seed,
        )
        subject = [
            [row.example_id, other.example_id, [[q.question, q.answer] for q in row.questions]]
            for row, other in zip(rows, partners, strict=True)
        ]
        table = {name: self._losses(case, name, rows, given, subject) for name in names}
        written = self._answers(case, rows, partners, given, subject)
        controls = np.array([r.conversation.control_id for r in rows for _ in r.questions])
        flat = {name: np.array([x for one in each for x in one]) for name, each in table.items()}
        found = panel(flat, controls, self._config)
        return {**found, "excluded": excluded}, list(_single(case, rows, table)), written

    def _losses(
        self, case: Case, condition: str, rows: Sequence[Row], given: Given, subject: Any
    ) -> list[list[float]]:
        """Answer losses of each row's questions, from the parts where they are there."""
        name = f"{case.split}.{case.name}.{condition}"
        losses = self._parts.load(name, subject)
        if losses is None:
            off = self._decoder.untrained() if condition in UNTRAINED else contextlib.nullcontext()
            with off:
                losses = question_losses(
                    self._decoder, rows, given(condition.removeprefix("untrained_"))
                )
            self._parts.keep(name, subject, losses)
        self._step()
        return losses

    def _answers(
        self,
        case: Case,
        rows: Sequence[Row],
        partners: Sequence[Row],
        given: Given,
        subject: Any,
    ) -> list[dict[str, Any]]:
        """Written answers about the first rows, from the parts where they are there."""
        if not self._config.answers:
            return []
        name = f"{case.split}.{case.name}.answers"
        kept = self._parts.load(name, subject)
        if kept is None:
            kept = self._write_answers(case, rows, partners, given)
            self._parts.keep(name, subject, kept)
        self._step()
        return kept

    def _write_answers(
        self, case: Case, rows: Sequence[Row], partners: Sequence[Row], given: Given
    ) -> list[dict[str, Any]]:
        first = {row.conversation.control_id: i for i, row in reversed(list(enumerate(rows)))}
        picked = sorted(first.values())[: self._config.answers]
        asked = [(i, question) for i in picked for question in rows[i].questions]
        texts = [question.question for _, question in asked]
        own, other = given("right"), given("other")
        found = answer(
            self._decoder,
            [own[i] for i, _ in asked] + [other[i] for i, _ in asked],
            texts + texts,
            max_tokens=self._config.max_answer_tokens,
        )
        out = []
        for j, (i, question) in enumerate(asked):
            conversation = rows[i].conversation
            out.append(
                {
                    "split": case.split,
                    "view": case.name,
                    "kind": conversation.kind,
                    "category": conversation.category,
                    "label": conversation.label,
                    "example_id": conversation.example_id,
                    "control": conversation.control,
                    "question": question.question,
                    "type": question.type,
                    "gold": question.answer,
                    "right": found[j].text,
                    "other": found[j + len(asked)].text,
                    "other_control": partners[i].conversation.control,
                }
            )
        return out


_LOSSES = pa.schema(
    [(name, pa.string()) for name in ("split", "view", "kind", "category", "control_id")]
    + [(name, pa.string()) for name in ("example_id", "question", "type", "condition")]
    + [("loss", pa.float64())]
)
_ANSWERS = pa.schema(
    [
        (name, pa.string())
        for name in (
            *("split", "view", "kind", "category", "label", "example_id", "control"),
            *("question", "type", "gold", "right", "other", "other_control"),
        )
    ]
)


def _write_table(path: Path, table: pa.Table) -> None:
    # through memory, so that the file is whole or absent
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def _single(
    case: Case, rows: Sequence[Row], table: dict[str, list[list[float]]]
) -> Iterator[dict[str, Any]]:
    for condition, losses in table.items():
        for row, own in zip(rows, losses, strict=True):
            for question, loss in zip(row.questions, own, strict=True):
                yield {
                    "split": case.split,
                    "view": case.name,
                    "kind": row.conversation.kind,
                    "category": row.conversation.category,
                    "control_id": row.conversation.control_id,
                    "example_id": row.example_id,
                    "question": question.question,
                    "type": question.type,
                    "condition": condition,
                    "loss": loss,
                }
