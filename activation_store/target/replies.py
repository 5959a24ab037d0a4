"""The step `complete`: the target writes its own replies, so that they are on-policy.

Each conversation that ends with a stimulus gets a second row, of view `stimulus_completion`, with
the target's own reply: the token ids that it generated, and their text. The rows that came in stay
as they are.

They are written here, or by a server of the target (`complete.endpoint`).

A reply ends at the end of turn that the chat template writes, or at the tokenizer's end of text.
Nothing of the model's generation_config.json takes part: what shapes a reply is `CompleteConfig`.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.model_files.files import ModelFiles, read_model_json
from activation_store.target.config import CompleteConfig
from activation_store.target.number_format import resolve_dtype
from activation_store.target.reply_text import ReplyReader, StimulusPrompt, TargetReply
from core.documents.canonical import digest
from core.errors import DataError
from core.files import storage_errors, write_bytes
from core.progress import Progress, silent
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    read_conversations,
    write_conversations,
    write_dropped,
)
from core.records.tables import COMPLETES, Conversation, Dropped, Message, example_id
from core.runtime import Runtime
from generators.rules.obedience import obeys_control

if TYPE_CHECKING:
    from generators.llm.session import LLMSession

_LOG = logging.getLogger(__name__)
_SEEDS_APART = 1_000_000_000_039
"""Step between the seeds of a batch's attempts, larger than all seeds of batches."""
_SERVED_ROWS = 4096
"""Conversations that an endpoint answers together: enough for it to be busy nearly all the time."""
_SCHEMA = pa.schema(
    {
        "ids": pa.list_(pa.int32()),
        "text": pa.string(),
        "finished": pa.bool_(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)
_SHAPING = ("repetition_penalty", "temperature", "top_p", "top_k", "min_p", "bad_words_ids")
"""Settings of generation_config.json whose absence a user may notice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompleteResult:
    """Counts of a run of the step.

    Attributes:
        examples: rows, those that came in included.
        completions: rows that were added.
        unfinished: those of them that reached the limit.
        dropped: replies that were left out, by reason.
        served: what an endpoint that wrote them was asked, and how far the target itself agrees;
            None where the target wrote them here.
    """

    examples: int
    completions: int
    unfinished: int
    dropped: dict[str, int]
    served: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        own = asdict(self)
        if self.served is None:
            del own["served"]
        return own


def complete(
    conversations: Path,
    out: Path,
    work: Path,
    *,
    config: CompleteConfig,
    model: ModelFiles,
    runtime: Runtime,
    session: LLMSession | None = None,
    progress: Progress = silent,
) -> CompleteResult:
    """Write the target's replies to every stimulus.

    Rows of view `stimulus` are answered; where there is none, as in own conversations whose
    controls are system prompts, those of view `system`. Goes on from the batches that are whole in
    `work`.

    Args:
        conversations: folder with conversations.parquet.
        out: receives conversations.parquet (rows that came in, then the completed ones) and
            dropped.parquet: replies that are empty, unfinished, disobedient or cut within their
            thought, whose conversation the chat template would write otherwise than the target saw
            it, and rows that it cannot write.
        work: keeps finished batches.
        config: how the target replies.
        model: the target.
        runtime: device and threads.
        session: the endpoint that serves the target; None where it replies here.
        progress: told the replies that are done.

    Raises:
        DataError: no conversation ends with a stimulus.
        EndpointError: the endpoint cannot be used, or serves another model.
        ModelError: the target cannot be loaded.
        StorageError: the disk is full; finished batches stay.
    """
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    view = "stimulus" if any(row.view == "stimulus" for row in rows) else "system"
    # by length: rows of one batch are then padded little; characters will do for that
    asked = sorted(
        (row for row in rows if row.view == view),
        key=lambda row: (sum(len(m.content) for m in row.messages), row.example_id),
    )
    if not asked:
        raise DataError(
            "complete: no conversation has view `stimulus` or `system`; there is nothing to answer."
        )
    with storage_errors(out):
        replies, served = _find_or_write(
            asked,
            work,
            config=config,
            model=model,
            runtime=runtime,
            session=session,
            progress=progress,
        )
        made: list[Conversation] = []
        dropped: list[Dropped] = []
        for row, reply in zip(asked, replies, strict=True):
            if reason := _drop_reason(row, reply, config):
                dropped.append(_dropped(row, reply, reason))
            else:
                made.append(_completed(row, reply, config.neutral_system))
        order = {row.example_id: i for i, row in enumerate(rows)}
        made.sort(key=lambda row: order[row.provenance[COMPLETES]])
        write_conversations(out / CONVERSATIONS_FILE, [*rows, *made])
        write_dropped(out / DROPPED_FILE, dropped)
    return CompleteResult(
        examples=len(rows) + len(made),
        completions=len(made),
        unfinished=sum("unfinished" in row.flags for row in made),
        dropped=dict(sorted(Counter(row.reason for row in dropped).items())),
        served=served,
    )


def _find_or_write(
    asked: list[Conversation],
    work: Path,
    *,
    config: CompleteConfig,
    model: ModelFiles,
    runtime: Runtime,
    session: LLMSession | None,
    progress: Progress,
) -> tuple[list[TargetReply], dict[str, Any] | None]:
    """Return the replies to `asked`, in order, and what an endpoint was asked."""
    size = config.batch_rows if session is None else _SERVED_ROWS
    batches = [asked[i : i + size] for i in range(0, len(asked), size)]
    parts = [work / f"{digest([row.example_id for row in own])[:16]}.parquet" for own in batches]
    replies = [_load_batch(*own) or [] for own in zip(parts, batches, strict=True)]
    missing = [i for i, own in enumerate(replies) if not own]
    served: dict[str, Any] | None = None

    def keep(i: int, own: list[TargetReply]) -> None:
        _keep_batch(parts[i], own)
        replies[i] = own
        progress(sum(map(len, replies)), len(asked), "replies")

    progress(sum(map(len, replies)), len(asked), "replies")
    if missing and session is not None:
        from activation_store.target.served_replies import write_served

        served = write_served(
            {i: batches[i] for i in missing},
            keep,
            asked[:: max(1, len(asked) // max(1, config.check_rows))][: config.check_rows],
            config=config,
            model=model,
            runtime=runtime,
            session=session,
        )
    elif missing:
        writer = _ReplyWriter(config, model, runtime)
        for i in missing:
            keep(i, writer.write(batches[i], seed=config.seed * 1_000_003 + i))
    return list(itertools.chain(*replies)), served


def _drop_reason(row: Conversation, reply: TargetReply, config: CompleteConfig) -> str:
    if reply.reason:
        return reply.reason
    if not reply.finished and config.unfinished == "drop":
        return "unfinished"
    against = config.disobedient == "drop" and not obeys_control(row, reply.text)
    return "disobedient" if against else ""


def _dropped(row: Conversation, reply: TargetReply, reason: str) -> Dropped:
    where = f"example {row.example_id} ({row.label})"
    detail = reply.detail or "the target's own reply"
    return Dropped(reason=reason, where=where, detail=detail, raw=reply.text)


def _completed(row: Conversation, reply: TargetReply, neutral_system: str | None) -> Conversation:
    from activation_store.tokens.tokens import COMPLETION_IDS

    said = row.messages
    if neutral_system is not None:
        neutral = Message(role="system", content=neutral_system, segment="control")
        said = (neutral, *(message for message in said if message.segment != "control"))
    messages = (*said, Message(role="assistant", content=reply.text, segment="completion"))
    return replace(
        row,
        example_id=example_id(row.label, "stimulus_completion", messages),
        view="stimulus_completion",
        messages=messages,
        completion_origin="target",
        flags=(*row.flags, *(() if reply.finished else ("unfinished",))),
        provenance={**row.provenance, COMPLETES: row.example_id, COMPLETION_IDS: reply.ids},
    )


class _ReplyWriter:
    """The target in memory, loaded when the first reply is missing."""

    def __init__(self, config: CompleteConfig, model: ModelFiles, runtime: Runtime) -> None:
        from activation_store.target.load import (
            load_model,
            load_tokenizer,
            pick_device,
            use_threads,
        )

        use_threads(runtime)
        self._config, self._model = config, model
        self._reader = ReplyReader(load_tokenizer(model))
        self._net: Any = load_model(
            model,
            dtype=resolve_dtype(config.compute_dtype, runtime),
            device=pick_device(runtime),
            runtime=runtime,
        )
        self._tell_ignored_settings()

    def _tell_ignored_settings(self) -> None:
        folder = self._model.folder
        own = read_model_json(folder / "generation_config.json")
        if ignored := {name: own[name] for name in _SHAPING if own.get(name) is not None}:
            _LOG.warning(
                "complete: generation_config.json of %s sets %s; it is not used. What is to shape "
                "replies stands in the section `complete`.",
                self._model.ref,
                ", ".join(f"{name} {value}" for name, value in ignored.items()),
            )

    def write(self, rows: Sequence[Conversation], *, seed: int) -> list[TargetReply]:
        """Write a reply to each row; one that the template cannot write says why.

        Of several attempts the first that obeys the row's control is kept, else the last.
        """
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
        from activation_store.target.generation import Sampling, generate_ids

        config = self._config
        sampling = Sampling(
            max_tokens=config.max_tokens,
            temperature=temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            repetition_penalty=config.repetition_penalty,
            seed=seed,
        )
        return generate_ids(self._net, prompts, self._reader.ends, sampling)


def _keep_batch(path: Path, replies: list[TargetReply]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(reply) for reply in replies], _SCHEMA), buffer)
    write_bytes(path, buffer.getvalue())


def _load_batch(path: Path, rows: list[Conversation]) -> list[TargetReply] | None:
    """Read the replies of a finished batch; None where there are none."""
    try:
        replies = [TargetReply(**row) for row in pq.read_table(path, schema=_SCHEMA).to_pylist()]
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return replies if len(replies) == len(rows) else None
