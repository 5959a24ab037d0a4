"""Batches of replies: which rows they have, how they are written and kept, by one process or many.

The batches follow from the conversations and the settings alone, and so do their seeds: whoever
writes a batch writes the same replies.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.model_files.files import ModelFiles, read_model_json
from activation_store.target.config import CompleteConfig
from activation_store.target.generation import Sampling, generate_ids, is_batchable
from activation_store.target.load import (
    load_model,
    load_tokenizer,
    pick_device,
    refusal,
    use_threads,
)
from activation_store.target.number_format import resolve_dtype
from activation_store.target.reply_text import ReplyReader, StimulusPrompt, TargetReply
from activation_store.target.worker_devices import (
    choose_pool,
    find_model,
    plain_model,
    worker_device,
)
from core.documents.canonical import canonical_json, digest
from core.errors import why_failed
from core.files import write_bytes
from core.processes.task_pool import TaskPool, split, worker_number
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Conversation
from core.runtime import Runtime
from generators.rules.obedience import obeys_control

_LOG = logging.getLogger(__name__)
_MOST_BATCHES = 16
"""Batches of a call at most: after each call its replies are shown as done."""
_SEEDS_APART = 1_000_000_000_039
"""Step between the seeds of a batch's attempts, larger than all seeds of batches."""
_SCHEMA = pa.schema(
    {
        "ids": pa.list_(pa.int32()),
        "text": pa.string(),
        "finished": pa.bool_(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)
_NOT_SHAPING = (
    *("_from_model_config", "transformers_version", "do_sample", "max_length", "max_new_tokens"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("use_cache", "cache_implementation", "return_dict_in_generate", "num_return_sequences"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
)
"""Fields of generation_config.json that do not change which token of a turn comes next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyBatch:
    """Rows that are answered together.

    Attributes:
        rows: the rows.
        part: file of their replies.
    """

    rows: list[Conversation]
    part: Path

    def keep(self, replies: list[TargetReply]) -> None:
        """Write the replies, atomically."""
        buffer = io.BytesIO()
        table = pa.Table.from_pylist([asdict(reply) for reply in replies], _SCHEMA)
        pq.write_table(table, buffer)
        write_bytes(self.part, buffer.getvalue())

    def load(self) -> list[TargetReply] | None:
        """Read the replies that were kept; None where there are none."""
        try:
            found = pq.read_table(self.part, schema=_SCHEMA).to_pylist()
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        return [TargetReply(**row) for row in found] if len(found) == len(self.rows) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyJob:
    """Replies that are to be written, as each process needs it.

    Attributes:
        conversations: folder with conversations.parquet.
        work: keeps finished batches.
        config: how the target replies.
        model: the target.
        runtime: device and threads.
    """

    conversations: Path
    work: Path
    config: CompleteConfig
    model: ModelFiles
    runtime: Runtime

    def load_target(self) -> Any:
        """Load the target on the device of `runtime`."""
        use_threads(self.runtime)
        return load_model(
            self.model,
            dtype=resolve_dtype(self.config.compute_dtype, self.runtime),
            device=pick_device(self.runtime),
            runtime=self.runtime,
        )

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for other processes."""
        return {
            "conversations": str(self.conversations.resolve()),
            "work": str(self.work.resolve()),
            "config": self.config.model_dump(mode="json"),
            "model": plain_model(self.model),
            "runtime": self.runtime.model_dump(mode="json"),
        }


def find_asked(rows: Sequence[Conversation]) -> list[Conversation]:
    """Return the rows that are answered, in order of length: a batch is then padded little.

    Those of view `stimulus`; where there is none, those of view `system`.
    """
    view = "stimulus" if any(row.view == "stimulus" for row in rows) else "system"
    return sorted(
        (row for row in rows if row.view == view),
        # characters will do for that
        key=lambda row: (sum(len(m.content) for m in row.messages), row.example_id),
    )


def cut_batches(asked: Sequence[Conversation], work: Path, size: int) -> list[ReplyBatch]:
    """Cut rows into batches of `size`, whose replies lie in `work`."""
    parts = [list(asked[i : i + size]) for i in range(0, len(asked), size)]
    return [
        ReplyBatch(
            rows=rows, part=work / f"{digest([row.example_id for row in rows])[:16]}.parquet"
        )
        for rows in parts
    ]


def write_with_pool(
    job: ReplyJob, missing: Sequence[int], pool: TaskPool | None, tell: Callable[[], object]
) -> bool:
    """Write batches by calls of a pool, as far as these get.

    A call that fails is told in the log; the caller writes the rest itself, and so meets the same
    error or does the work.

    Args:
        job: the replies.
        missing: numbers of the batches.
        pool: runs the calls, where not all GPUs of the machine do.
        tell: called after each call.

    Returns:
        Whether any call was made.
    """
    pool = choose_pool(job.runtime, pool)
    if pool.workers == 1 or len(missing) < 2:
        return False
    groups = split(missing, pool, most=_MOST_BATCHES)
    labels = [f"replies of batches {group[0]}-{group[-1]}" for group in groups]
    calls = [{"job": job.plain(), "batches": list(group)} for group in groups]
    for outcome in pool.run(write_batches, calls, labels):
        if outcome.error is not None:
            _LOG.warning("complete: %s: %s", labels[outcome.number], why_failed(outcome.error))
        tell()
    return True


def write_batches(*, job: Mapping[str, Any], batches: Sequence[int]) -> int:
    """Write some batches of replies in this process, on its own device.

    Args:
        job: as `ReplyJob.plain` returns it.
        batches: their numbers.

    Returns:
        The number of replies.

    Raises:
        LatentQAError: as `complete`.
    """
    device = worker_device(Runtime.model_validate(job["runtime"]), worker_number())
    placed = {**job, "runtime": {**job["runtime"], "device": str(device)}}
    found, writer = _open(canonical_json(placed).decode())
    written = 0
    for i in batches:
        replies = writer.write(found[i].rows, i)
        found[i].keep(replies)
        written += len(replies)
    return written


@lru_cache(maxsize=1)
def _open(described: str) -> tuple[list[ReplyBatch], ReplyWriter]:
    """Read the batches of a step and load its target; the next call finds both.

    Args:
        described: what `ReplyJob.plain` returned, as JSON.
    """
    plain = json.loads(described)
    job = ReplyJob(
        conversations=Path(plain["conversations"]),
        work=Path(plain["work"]),
        config=CompleteConfig.model_validate(plain["config"]),
        model=find_model(plain["model"]),
        runtime=Runtime.model_validate(plain["runtime"]),
    )
    asked = find_asked(read_conversations(job.conversations / CONVERSATIONS_FILE))
    return cut_batches(asked, job.work, job.config.batch_rows), ReplyWriter(job)


class ReplyWriter:
    """The target in memory."""

    def __init__(self, job: ReplyJob) -> None:
        self._config = job.config
        self._reader = ReplyReader(load_tokenizer(job.model))
        self._net = job.load_target()
        try:
            self._batched = is_batchable(self._net)
        except Exception as error:  # a config and weights that do not go together fail anywhere
            raise refusal(job.model, "it fails on a short prompt", error) from error
        _tell_ignored_settings(job.model)

    def write(self, rows: Sequence[Conversation], batch: int) -> list[TargetReply]:
        """Write a reply to each row of a batch; one that the template cannot write says why.

        The number of the batch decides what is drawn. Of several attempts the first that obeys the
        row's control is kept, else the last.
        """
        seed = self._config.seed * 1_000_003 + batch
        prompts = self._reader.prompts(rows)
        replies = self._attempt(prompts, seed, self._config.temperature)
        for attempt in range(1, self._config.attempts):
            again = [
                i
                for i, (row, prompt, reply) in enumerate(zip(rows, prompts, replies, strict=True))
                if isinstance(prompt, StimulusPrompt) and not self._is_wanted(row, reply)
            ]
            if not again:
                break
            drawn = self._attempt(
                [prompts[i] for i in again],
                seed + attempt * _SEEDS_APART,
                self._config.temperature or 1.0,
            )
            for i, reply in zip(again, drawn, strict=True):
                replies[i] = reply
        return replies

    def _is_wanted(self, row: Conversation, reply: TargetReply) -> bool:
        unfinished = not reply.finished and self._config.unfinished == "drop"
        return not (reply.reason or unfinished) and obeys_control(row, reply.text)

    def _attempt(
        self, prompts: Sequence[StimulusPrompt | TargetReply], seed: int, temperature: float
    ) -> list[TargetReply]:
        ids = [own.ids for own in prompts if isinstance(own, StimulusPrompt)]
        return self._reader.replies(prompts, self._generate(ids, seed, temperature) if ids else [])

    def _generate(self, prompts: list[list[int]], seed: int, temperature: float) -> list[list[int]]:
        """Generate the token ids that follow each prompt, up to the end of turn and with it."""
        config = self._config
        sampling = Sampling(
            max_tokens=config.max_tokens,
            temperature=temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            repetition_penalty=config.repetition_penalty,
            seed=seed,
        )
        ends = self._reader.ends
        return generate_ids(self._net, prompts, ends, sampling, batched=self._batched)


def _tell_ignored_settings(model: ModelFiles) -> None:
    own = read_model_json(model.folder / "generation_config.json")
    shaping = own.keys() - {*_NOT_SHAPING}
    if ignored := {name: own[name] for name in sorted(shaping) if own[name] is not None}:
        _LOG.warning(
            "complete: generation_config.json of %s sets %s; it is not used. What is to shape "
            "replies stands in the section `complete`.",
            model.ref,
            ", ".join(f"{name} {str(value)[:40]}" for name, value in ignored.items()),
        )
