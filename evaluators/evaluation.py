"""The step `evaluate`: does the decoder read? Losses under every condition, gains, answers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.model_files import ModelFiles
from activation_store.reader import ActivationStore
from activation_store.runtime import Runtime
from activation_store.target import pick_device, use_threads
from decoder.asking import answer
from decoder.batch import Reading
from decoder.model import Decoder
from evaluators.conditions import mean_token, pair_others, uninformed
from evaluators.config import EvaluateConfig
from evaluators.losses import question_losses
from evaluators.panel import UNTRAINED, panel
from generators.canonical import digest
from generators.errors import DataError
from generators.files import storage_errors, write_bytes, write_json
from generators.progress import Progress, silent
from trainers.rows import Row, load_rows, read_row, select

METRICS_FILE = "metrics.json"
LOSSES_FILE = "losses.parquet"
ANSWERS_FILE = "answers.parquet"


@dataclass(frozen=True, kw_only=True)
class Case:
    """The rows of one split and view that are judged.

    Attributes:
        name: the view, with `+visible` where masking is off.
        pool: all rows of the split and view, from which partners are drawn.
        train: training rows of the view, for the mean token.
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
        pq.write_table(pa.Table.from_pylist(losses, _LOSSES), out / LOSSES_FILE, compression="zstd")
        pq.write_table(
            pa.Table.from_pylist(answers, _ANSWERS), out / ANSWERS_FILE, compression="zstd"
        )
        write_json(out / METRICS_FILE, {"reading": tree})
    return tree


def _cases(rows: list[Row], config: EvaluateConfig, masking: bool) -> list[Case]:
    out = []
    for split in config.splits:
        for view in config.views:
            pool = select(rows, split=split, views=[view], most=None, seed=config.seed)
            if not pool:
                continue
            train = select(rows, split="train", views=[view], most=None, seed=config.seed)
            # a row of a new control, until there are enough; then their other rows too
            wanted = list(dict.fromkeys(row.conversation.control_id for row in pool))
            wanted = wanted[: config.max_controls]
            own = [row for row in pool if row.conversation.control_id in set(wanted)]
            kinds = [(view, masking if view != "control" else False)]
            if config.visible_too and masking and view != "control":
                kinds.append((f"{view}+visible", False))
            elif not masking and view != "control":
                kinds = [(f"{view}+visible", False)]
            out += [
                Case(split=split, name=name, masking=mask, rows=own, pool=pool, train=train)
                for name, mask in kinds
            ]
    return out


class _Steps:
    """Counts the conditions that are done."""

    def __init__(self, progress: Progress, cases: int, config: EvaluateConfig) -> None:
        self._progress = progress
        self._total = cases * (len(config.conditions) + len(UNTRAINED) + (config.answers > 0))
        self._done = 0

    def __call__(self) -> None:
        self._done += 1
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
        self._work = work
        self._step = step

    def __call__(
        self, case: Case
    ) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """Panel, single losses and sampled answers of a case."""
        others = pair_others(
            case.pool, self._store, masking=case.masking, seed=self._config.seed
        )
        rows = [row for row in case.rows if row.example_id in others]
        excluded = {"no_other_control": len(case.rows) - len(rows)} if len(rows) < len(case.rows) else {}
        if not rows:
            return {"answer_loss": {}, "excluded": excluded}, [], []
        own = [self._read(row, case) for row in rows]
        other = [self._read(others[row.example_id], case) for row in rows]
        mean = mean_token(case.train or rows, self._store, self._layer, masking=case.masking)
        table: dict[str, list[list[float]]] = {}
        for condition in self._config.conditions:
            if condition == "right":
                given = own
            elif condition == "other":
                given = other
            else:
                given = [
                    uninformed(r, condition, mean=mean, seed=_seed(self._config.seed, row))
                    for r, row in zip(own, rows, strict=True)
                ]
            table[condition] = self._losses(case, condition, rows, given)
        for name, given in zip(UNTRAINED, (own, other), strict=True):
            table[name] = self._losses(case, name, rows, given)
        controls = np.array([r.conversation.control_id for r in rows for _ in r.questions])
        flat = {name: np.array([x for one in each for x in one]) for name, each in table.items()}
        found = panel(flat, controls, self._config)
        found["excluded"] = excluded
        single = list(_single(case, rows, table))
        written = self._answers(case, rows, own, other, others) if self._config.answers else []
        return found, single, written

    def _read(self, row: Row, case: Case) -> Reading:
        return read_row(self._store, row, self._layer, masking=case.masking)

    def _losses(
        self, case: Case, condition: str, rows: Sequence[Row], given: Sequence[Reading]
    ) -> list[list[float]]:
        path = self._work / f"{case.split}.{case.name}.{condition}.parquet"
        if (kept := _load(path)) is not None:
            self._step()
            return [row["losses"] for row in kept]
        untrained = condition in UNTRAINED
        with self._decoder.untrained() if untrained else contextlib.nullcontext():
            losses = question_losses(self._decoder, rows, given)
        _keep(path, [{"losses": x} for x in losses])
        self._step()
        return losses

    def _answers(
        self,
        case: Case,
        rows: Sequence[Row],
        own: Sequence[Reading],
        other: Sequence[Reading],
        others: dict[str, Row],
    ) -> list[dict[str, Any]]:
        path = self._work / f"{case.split}.{case.name}.answers.parquet"
        kept = _load(path)
        if kept is None:
            kept = self._write_answers(case, rows, own, other, others)
            _keep(path, kept)
        self._step()
        return kept

    def _write_answers(
        self,
        case: Case,
        rows: Sequence[Row],
        own: Sequence[Reading],
        other: Sequence[Reading],
        others: dict[str, Row],
    ) -> list[dict[str, Any]]:
        picked = range(min(self._config.answers, len(rows)))
        asked = [(i, question) for i in picked for question in rows[i].questions]
        texts = [question.question for _, question in asked]
        given = [own[i] for i, _ in asked] + [other[i] for i, _ in asked]
        found = answer(
            self._decoder, given, texts + texts, max_tokens=self._config.max_answer_tokens
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
                    "gold": question.answer,
                    "right": found[j].text,
                    "other": found[j + len(asked)].text,
                    "other_control": others[conversation.example_id].conversation.control,
                }
            )
        return out


_LOSSES = pa.schema(
    [(name, pa.string()) for name in ("split", "view", "kind", "category", "control_id")]
    + [(name, pa.string()) for name in ("example_id", "question", "condition")]
    + [("loss", pa.float64())]
)
_ANSWERS = pa.schema(
    [
        (name, pa.string())
        for name in (
            *("split", "view", "kind", "category", "label", "example_id", "control"),
            *("question", "gold", "right", "other", "other_control"),
        )
    ]
)


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
                    "condition": condition,
                    "loss": loss,
                }


def _seed(seed: int, row: Row) -> int:
    return int(digest([seed, row.example_id])[:12], 16)


def _keep(path: Path, rows: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    write_bytes(path, buffer.getvalue())


def _load(path: Path) -> list[dict[str, Any]] | None:
    return pq.read_table(path).to_pylist() if path.is_file() else None
