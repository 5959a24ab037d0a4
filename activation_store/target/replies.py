"""The step `complete`: the target writes its own replies, so that they are on-policy.

Each conversation that ends with a stimulus gets a second row, of view `stimulus_completion`, with
the target's own reply: the token ids that it generated, and their text. The rows that came in stay
as they are.

A reply ends at the end of turn that the chat template writes, or at the tokenizer's end of text.
Nothing of the model's generation_config.json takes part: what shapes a reply is `CompleteConfig`.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.model_files.files import ModelFiles, read_json_object
from activation_store.target.config import CompleteConfig
from activation_store.target.number_format import resolve_dtype
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
from core.tables import COMPLETES, Conversation, Dropped, Message, example_id

_LOG = logging.getLogger(__name__)
_TAIL = 64
"""Characters of a prompt's end in which a template may open a thought."""
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
class Reply:
    """What the target wrote to one stimulus, or why that is not kept.

    Attributes:
        ids: token ids that it generated, the end of turn among them.
        text: what they say, as the content of a message.
        finished: whether it ended its turn.
        reason: name of the rule by which it is dropped; empty where it is kept.
        detail: why, in words.
    """

    ids: list[int]
    text: str
    finished: bool
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompleteResult:
    """Counts of a run of the step.

    Attributes:
        examples: rows, those that came in included.
        completions: rows that were added.
        unfinished: those of them that reached the limit.
        dropped: replies that were left out, by reason.
    """

    examples: int
    completions: int
    unfinished: int
    dropped: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return asdict(self)


def complete(
    conversations: Path,
    out: Path,
    work: Path,
    *,
    config: CompleteConfig,
    model: ModelFiles,
    runtime: Runtime,
    progress: Progress = silent,
) -> CompleteResult:
    """Write the target's replies to every stimulus.

    Rows of view `stimulus` are answered; where there is none, as in own conversations whose
    controls are system prompts, those of view `system`. Goes on from the batches that are whole in
    `work`.

    Args:
        conversations: folder with conversations.parquet.
        out: receives conversations.parquet (rows that came in, then the completed ones) and
            dropped.parquet: replies that are empty, unfinished or cut within their thought, whose
            conversation the chat template would write otherwise than the target saw it, and rows
            that it cannot write.
        work: keeps finished batches.
        config: how the target replies.
        model: the target.
        runtime: device and threads.
        progress: told the replies that are done.

    Raises:
        DataError: no conversation ends with a stimulus.
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
    batches = [asked[i : i + config.batch_rows] for i in range(0, len(asked), config.batch_rows)]
    made: list[Conversation] = []
    dropped: list[Dropped] = []
    writer: _ReplyWriter | None = None
    with storage_errors(out):
        for i, batch in enumerate(batches):
            progress(i * config.batch_rows, len(asked), "replies")
            part = work / f"{digest([row.example_id for row in batch])[:16]}.parquet"
            replies = _load_batch(part, batch)
            if replies is None:
                writer = writer or _ReplyWriter(config, model, runtime)
                replies = writer.write(batch, seed=config.seed * 1_000_003 + i)
                _keep_batch(part, replies)
            for row, reply in zip(batch, replies, strict=True):
                if reason := _drop_reason(reply, config):
                    dropped.append(_dropped(row, reply, reason))
                else:
                    made.append(_completed(row, reply))
        progress(len(asked), len(asked), "replies")
        order = {row.example_id: i for i, row in enumerate(rows)}
        made.sort(key=lambda row: order[row.provenance[COMPLETES]])
        write_conversations(out / CONVERSATIONS_FILE, [*rows, *made])
        write_dropped(out / DROPPED_FILE, dropped)
    return CompleteResult(
        examples=len(rows) + len(made),
        completions=len(made),
        unfinished=sum("unfinished" in row.flags for row in made),
        dropped=dict(sorted(Counter(row.reason for row in dropped).items())),
    )


def _drop_reason(reply: Reply, config: CompleteConfig) -> str:
    if reply.reason:
        return reply.reason
    return "unfinished" if not reply.finished and config.unfinished == "drop" else ""


def _dropped(row: Conversation, reply: Reply, reason: str) -> Dropped:
    where = f"example {row.example_id} ({row.label})"
    detail = reply.detail or "the target's own reply"
    return Dropped(reason=reason, where=where, detail=detail, raw=reply.text)


def _completed(row: Conversation, reply: Reply) -> Conversation:
    from activation_store.tokens.tokens import COMPLETION_IDS

    messages = (*row.messages, Message(role="assistant", content=reply.text, segment="completion"))
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
        from activation_store.tokens.tokens import ends_of_reply

        use_threads(runtime)
        self._config, self._model = config, model
        self._tokenizer = load_tokenizer(model)
        self._net: Any = load_model(
            model,
            dtype=resolve_dtype(config.compute_dtype, runtime),
            device=pick_device(runtime),
            runtime=runtime,
        )
        self._ends = ends_of_reply(self._tokenizer)
        self._tell_ignored_settings()

    def _tell_ignored_settings(self) -> None:
        folder = self._model.folder
        own = read_json_object(folder / "generation_config.json")
        if ignored := {name: own[name] for name in _SHAPING if own.get(name) is not None}:
            _LOG.warning(
                "complete: generation_config.json of %s sets %s; it is not used. What is to shape "
                "replies stands in the section `complete`.",
                self._model.ref,
                ", ".join(f"{name} {value}" for name, value in ignored.items()),
            )

    def write(self, rows: Sequence[Conversation], *, seed: int) -> list[Reply]:
        """Write a reply to each row; one that the template cannot write says why."""
        from activation_store.tokens.tokens import tokenize_with_text

        refused: dict[int, Reply] = {}
        prompts: list[tuple[Conversation, list[int], str]] = []
        for i, row in enumerate(rows):
            try:
                tokens, encoded = tokenize_with_text(self._tokenizer, row.messages)
            except DataError as error:
                refused[i] = Reply(
                    ids=[], text="", finished=False, reason="template", detail=str(error)
                )
            else:
                prompts.append((row, tokens.ids.tolist(), encoded.text))
        generated = self._generate([ids for _, ids, _ in prompts], seed) if prompts else []
        replies = iter(
            self._reply(row, prompt, text, ids)
            for (row, prompt, text), ids in zip(prompts, generated, strict=True)
        )
        return [refused[i] if i in refused else next(replies) for i in range(len(rows))]

    def _generate(self, prompts: list[list[int]], seed: int) -> list[list[int]]:
        """Generate the token ids that follow each prompt, up to the end of turn and with it."""
        from activation_store.target.generation import Sampling, generate_ids

        config = self._config
        sampling = Sampling(
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            repetition_penalty=config.repetition_penalty,
            seed=seed,
        )
        return generate_ids(self._net, prompts, self._ends, sampling)

    def _reply(
        self, row: Conversation, prompt: list[int], prompt_text: str, ids: list[int]
    ) -> Reply:
        """Return a reply with its text, if the conversation with that text is what the target saw.

        Args:
            row: the conversation up to the stimulus.
            prompt: its token ids.
            prompt_text: its text.
            ids: what the target generated.
        """
        finished = bool(ids) and ids[-1] in self._ends
        said = ids[:-1] if finished else ids
        before = self._decode(prompt)
        written = self._decode([*prompt, *said])[len(before) :]
        seen = prompt_text + written
        content = self._content(row, seen)
        text = content or written
        reason, detail = "", ""
        if not finished and _is_within_thought(seen[len(prompt_text) - _TAIL :]):
            reason = "thought"
            detail = (
                f"cut within its thought at {len(ids)} tokens; raise complete.max_tokens, or turn "
                "thinking off in dump.template_args"
            )
        elif not text.strip():
            reason = "empty"
        elif not self._leaves_thought_out(row, content) and (
            refusal := self._differs(row, text, seen)
        ):
            reason, detail = "rendering", refusal
        return Reply(ids=ids, text=text, finished=finished, reason=reason, detail=detail)

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _content(self, row: Conversation, seen: str) -> str:
        """Return what of `seen` stands where the template writes a reply; empty if elsewhere."""
        from activation_store.tokens.template import locate
        from core.tool_use import for_template, offered_tools

        messages = [*map(for_template, row.messages), {"role": "assistant", "content": "x"}]
        try:
            text, spans = locate(
                self._tokenizer, messages, generation=False, tools=offered_tools(row.messages)
            )
        except DataError:
            return ""
        before = text[: spans[-1][0]]
        return seen[len(before) :] if seen.startswith(before) else ""

    def _differs(self, row: Conversation, text: str, seen: str) -> str:
        """Return why the template would write the reply otherwise than the target saw it."""
        from activation_store.tokens.tokens import tokenize_with_text

        reply = Message(role="assistant", content=text, segment="completion")
        try:
            _, encoded = tokenize_with_text(self._tokenizer, (*row.messages, reply))
        except DataError as error:
            return str(error)
        if encoded.text.startswith(seen):
            return ""
        return "the chat template would write this reply otherwise than the target saw it"

    def _leaves_thought_out(self, row: Conversation, text: str) -> bool:
        """Return whether all that the template changes in a reply is to leave its thought out.

        DeepSeek R1's does so. Such a row is dumped by its token ids, the thought among them.
        """
        from activation_store.tokens.template import renders_alike
        from core.tool_use import for_template, offered_tools

        _, thought_end, answer = text.rpartition("</think>")
        before = [for_template(message) for message in row.messages]
        whole, without = (
            [*before, {"role": "assistant", "content": content}] for content in (text, answer)
        )
        return bool(thought_end and answer.strip()) and renders_alike(
            self._tokenizer, whole, without, tools=offered_tools(row.messages)
        )


def _is_within_thought(text: str) -> bool:
    """Return whether a thought is open at the end of `text`."""
    return text.rfind("<think>") > text.rfind("</think>")


def _keep_batch(path: Path, replies: list[Reply]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(reply) for reply in replies], _SCHEMA), buffer)
    write_bytes(path, buffer.getvalue())


def _load_batch(path: Path, rows: list[Conversation]) -> list[Reply] | None:
    """Read the replies of a finished batch; None where there are none."""
    try:
        replies = [Reply(**row) for row in pq.read_table(path, schema=_SCHEMA).to_pylist()]
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return replies if len(replies) == len(rows) else None
