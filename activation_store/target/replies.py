"""The step `complete`: the target writes its own replies, so that they are on-policy.

Each conversation that ends with a stimulus gets a second row, of view `stimulus_completion`, with
the target's own reply; the rows that came in stay as they are.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.target.config import CompleteConfig
from activation_store.target.files import ModelFiles
from core.canonical import digest
from core.errors import DataError
from core.files import storage_errors, write_bytes
from core.progress import Progress, silent
from core.runtime import Runtime
from core.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    read_conversations,
    write_conversations,
    write_dropped,
)
from core.tables import Conversation, Dropped, Message, example_id

COMPLETES = "completes"
"""Key in a completed row's provenance: id of the row whose stimulus it answers; questions about
that row are questions about this one."""


def complete(
    conversations: Path,
    out: Path,
    work: Path,
    *,
    config: CompleteConfig,
    model: ModelFiles,
    runtime: Runtime,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the target's replies to every stimulus.

    Goes on from the batches that it finds whole in `work`.

    Args:
        conversations: folder with conversations.parquet.
        out: receives conversations.parquet (rows that came in, then the completed ones) and
            dropped.parquet: replies that are empty or unfinished, and rows that the chat template
            cannot write.

    Returns:
        {"examples", "completions", "unfinished", "dropped": {reason: count}}.

    Raises:
        DataError: no conversation ends with a stimulus.
        ModelError: the target cannot be loaded.
        StorageError: the disk is full; finished batches stay.
    """
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    # by length: rows of one batch are then padded little; characters will do for that
    asked = sorted(
        (row for row in rows if row.view == "stimulus"),
        key=lambda row: (sum(len(m.content) for m in row.messages), row.example_id),
    )
    if not asked:
        raise DataError(
            "complete: no conversation has view `stimulus`; there is nothing to answer."
        )
    batches = [asked[i : i + config.batch_rows] for i in range(0, len(asked), config.batch_rows)]
    made: list[Conversation] = []
    dropped: list[Dropped] = []
    writer: _Writer | None = None
    with storage_errors(out):
        for i, batch in enumerate(batches):
            progress(i * config.batch_rows, len(asked), "replies")
            part = work / f"{digest([row.example_id for row in batch])[:16]}.parquet"
            replies = _load(part, batch)
            if replies is None:
                writer = writer or _Writer(config, model, runtime)
                replies = writer(batch, seed=config.seed * 1_000_003 + i)
                _keep(part, replies)
            for row, reply in zip(batch, replies, strict=True):
                verdict = _completed(row, reply, config)
                (made if isinstance(verdict, Conversation) else dropped).append(verdict)  # type: ignore[arg-type]
        progress(len(asked), len(asked), "replies")
        order = {row.example_id: i for i, row in enumerate(rows)}
        made.sort(key=lambda row: order[row.provenance[COMPLETES]])
        write_conversations(out / CONVERSATIONS_FILE, [*rows, *made])
        write_dropped(out / DROPPED_FILE, dropped)
    return {
        "examples": len(rows) + len(made),
        "completions": len(made),
        "unfinished": sum("unfinished" in row.flags for row in made),
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
    }


def _completed(
    row: Conversation, reply: dict[str, Any], config: CompleteConfig
) -> Conversation | Dropped:
    text, finished, refused = reply["text"], reply["finished"], reply.get("refused")
    reason = "empty" if not text else ""
    if not finished and config.unfinished == "drop":
        reason = "unfinished"
    if refused:
        reason = "template"
    if reason:
        where = f"example {row.example_id} ({row.label})"
        detail = refused or "the target's own reply"
        return Dropped(reason=reason, where=where, detail=detail, raw=text)
    messages = (*row.messages, Message(role="assistant", content=text, segment="completion"))
    return replace(
        row,
        example_id=example_id(row.label, "stimulus_completion", messages),
        view="stimulus_completion",
        messages=messages,
        completion_origin="target",
        flags=(*row.flags, *(() if finished else ("unfinished",))),
        provenance={**row.provenance, COMPLETES: row.example_id},
    )


class _Writer:
    """The target, loaded when the first reply is missing."""

    def __init__(self, config: CompleteConfig, model: ModelFiles, runtime: Runtime) -> None:
        from activation_store.target.load import (
            load_model,
            load_tokenizer,
            pick_device,
            use_threads,
        )

        use_threads(runtime)
        self._config = config
        self._tokenizer = load_tokenizer(model)
        self._net = load_model(model, dtype=config.compute_dtype, device=pick_device(runtime))

    def __call__(self, rows: list[Conversation], *, seed: int) -> list[dict[str, Any]]:
        """Replies to rows: {"text", "finished"}, and "refused" where the template cannot write one,
        which says why.
        """
        from activation_store.target.tokens import tokenize

        out: list[dict[str, Any]] = []
        asked: list[list[int]] = []
        for row in rows:
            try:
                asked.append(tokenize(self._tokenizer, row.messages).ids.tolist())
                out.append({})
            except DataError as error:
                out.append({"text": "", "finished": False, "refused": str(error)})
        replies = iter(self._generate(asked, seed=seed) if asked else [])
        return [own or next(replies) for own in out]

    def _generate(self, ids: list[list[int]], *, seed: int) -> list[dict[str, Any]]:
        import torch

        from activation_store.target.quiet import quiet_libraries

        width = max(len(own) for own in ids)
        device = next(self._net.parameters()).device
        batch = torch.zeros(len(ids), width, dtype=torch.long)
        mask = torch.zeros(len(ids), width, dtype=torch.long)
        for i, own in enumerate(ids):
            batch[i, width - len(own) :] = torch.tensor(own)
            mask[i, width - len(own) :] = 1
        greedy = self._config.temperature == 0
        torch.manual_seed(seed)
        with torch.inference_mode(), quiet_libraries():
            found = self._net.generate(
                batch.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=self._config.max_tokens,
                do_sample=not greedy,
                temperature=None if greedy else self._config.temperature,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
                eos_token_id=self._ends(),
            )
        ends = set(self._ends())
        return [self._reply(own, ends) for own in found[:, width:].tolist()]

    def _ends(self) -> list[int]:
        own = self._net.generation_config.eos_token_id
        known = own if isinstance(own, list) else [own]
        return sorted({i for i in [*known, self._tokenizer.eos_token_id] if i is not None})

    def _reply(self, ids: list[int], ends: set[int]) -> dict[str, Any]:
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        text = self._tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
        return {"text": text, "finished": stop is not None}


def _keep(path: Path, replies: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(replies), buffer)
    write_bytes(path, buffer.getvalue())


def _load(path: Path, rows: list[Conversation]) -> list[dict[str, Any]] | None:
    try:
        replies = pq.read_table(path).to_pylist()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return replies if len(replies) == len(rows) else None
