"""The step `complete`: the target writes its own replies, so that they are on-policy.

Each conversation that ends with a stimulus gets a second row, of view `stimulus_completion`, with
the target's own reply: the token ids that it generated, and their text. The rows that came in stay
as they are.

They are written here, or by a server of the target (`complete.endpoint`).

A reply ends at the end of turn that the chat template writes, or at the tokenizer's end of text.
Nothing of the model's generation_config.json takes part: what shapes a reply is `CompleteConfig`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation_store.target.config import CompleteConfig
from activation_store.target.reply_batches import (
    ReplyJob,
    ReplyWriter,
    cut_batches,
    find_asked,
    write_with_pool,
)
from activation_store.target.reply_text import TargetReply
from activation_store.tokens.tokens import COMPLETION_IDS
from core.errors import DataError
from core.files import storage_errors
from core.processes.task_pool import TaskPool
from core.progress import Progress, silent
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    read_conversations,
    write_conversations,
    write_dropped,
)
from core.records.tables import COMPLETES, Conversation, Dropped, Message, example_id
from generators.rules.obedience import obeys_control

if TYPE_CHECKING:
    from generators.llm.session import LLMSession

_SERVED_ROWS = 4096
"""Conversations that an endpoint answers together: enough for it to be busy nearly all the time."""


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
    job: ReplyJob,
    out: Path,
    *,
    session: LLMSession | None = None,
    progress: Progress = silent,
    pool: TaskPool | None = None,
) -> CompleteResult:
    """Write the target's replies to every stimulus.

    Rows of view `stimulus` are answered; where there is none, as in own conversations whose
    controls are system prompts, those of view `system`. Goes on from the batches that are whole in
    `job.work`.

    Args:
        job: conversations, the target and how it replies.
        out: receives conversations.parquet (rows that came in, then the completed ones) and
            dropped.parquet: replies that are empty, unfinished, disobedient or cut within their
            thought, whose conversation the chat template would write otherwise than the target saw
            it, and rows that it cannot write.
        session: the endpoint that serves the target; None where it replies here.
        progress: told the replies that are done.
        pool: runs batches side by side; None for that of `runtime`. Replies are the same.

    Raises:
        DataError: no conversation ends with a stimulus.
        EndpointError: the endpoint cannot be used, or serves another model.
        ModelError: the target cannot be loaded.
        StorageError: the disk is full; finished batches stay.
    """
    rows, config = read_conversations(job.conversations / CONVERSATIONS_FILE), job.config
    asked = find_asked(rows)
    if not asked:
        raise DataError(
            "complete: no conversation has view `stimulus` or `system`, so there is "
            "nothing to reply to."
        )
    with storage_errors(out):
        replies, served = _find_or_write(job, asked, session=session, progress=progress, pool=pool)
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
    job: ReplyJob,
    asked: list[Conversation],
    *,
    session: LLMSession | None,
    progress: Progress,
    pool: TaskPool | None,
) -> tuple[list[TargetReply], dict[str, Any] | None]:
    """Return the replies to `asked`, in order, and what an endpoint was asked."""
    config = job.config
    batches = cut_batches(asked, job.work, config.batch_rows if session is None else _SERVED_ROWS)
    replies: list[list[TargetReply]] = []
    served: dict[str, Any] | None = None

    def find() -> list[int]:
        """Load what was written, and return the numbers of the batches that are missing."""
        replies[:] = [batch.load() or [] for batch in batches]
        progress(sum(map(len, replies)), len(asked), "replies")
        return [i for i, own in enumerate(replies) if not own]

    def keep(i: int, own: list[TargetReply]) -> None:
        batches[i].keep(own)
        replies[i] = own
        progress(sum(map(len, replies)), len(asked), "replies")

    missing = find()
    if missing and session is not None:
        from activation_store.target.served_replies import write_served

        sample = asked[:: max(1, len(asked) // max(1, config.check_rows))][: config.check_rows]
        rows = {i: batches[i].rows for i in missing}
        served = write_served(job, rows, keep, sample, session)
    elif missing:
        if write_with_pool(job, missing, pool, find):
            missing = find()
        writer = ReplyWriter(job) if missing else None
        for i in missing:
            assert writer is not None
            keep(i, writer.write(batches[i].rows, i))
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
