"""What a dump needs before the target runs: tokenized conversations and the store's plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan, SharedShard, plan_layout
from activation_store.model_files.files import ModelFiles
from activation_store.target.load import load_tokenizer, model_shape
from activation_store.target.swaps import is_swappable, tokenize_swapped
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens, tokenize_row
from activation_store.write.reuse import ReusableStores, read_started_plan
from core.errors import ConfigError, DataError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Conversation, Dropped


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedDump:
    """Tokenized conversations, and all that a plan of their store needs.

    Attributes:
        tokens: of the conversations that are stored.
        dropped: those that are left out.
        layers: the read layers, counted from 0.
        d_model: width of an activation.
        target: digests of the target's files.
    """

    tokens: TokenTable
    dropped: tuple[Dropped, ...]
    config: CaptureConfig
    layers: tuple[int, ...]
    d_model: int
    target: dict[str, str]

    def make_plan(self, shared: Sequence[SharedShard] = ()) -> Plan:
        """Lay out the store, with these shards of other stores first."""
        return plan_layout(
            self.tokens,
            config=self.config,
            layers=self.layers,
            d_model=self.d_model,
            target=self.target,
            shared=shared,
        )


def prepare_dump(
    conversations: Path, config: CaptureConfig, model: ModelFiles, *, scratch: Path | None = None
) -> PreparedDump:
    """Tokenize conversations, and find the read layers; the target is not loaded.

    Args:
        conversations: folder with conversations.parquet.
        config: as of the dump.
        model: the target.
        scratch: folder for the tokens of very many rows; None keeps them in memory.

    Raises:
        ConfigError: a block is named twice.
        DataError, ModelError: as `dump`.
    """
    _read_layers(config, model)  # what is wrong with them is said before rows are tokenized
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    longest = min(config.max_tokens, model_shape(model).max_positions)
    tokenizer = load_tokenizer(model)
    tokens, dropped = tokenize_rows(rows, tokenizer, config, longest=longest, scratch=scratch)
    return prepare_tokens(tokens, config, model, dropped)


def prepare_tokens(
    tokens: TokenTable, config: CaptureConfig, model: ModelFiles, dropped: Sequence[Dropped] = ()
) -> PreparedDump:
    """Find the read layers, for conversations that are tokenized already.

    Raises:
        ConfigError, ModelError: as `prepare_dump`.
    """
    return PreparedDump(
        tokens=tokens,
        dropped=tuple(dropped),
        config=config,
        layers=_read_layers(config, model),
        d_model=model_shape(model).d_model,
        target=model.digests(),
    )


def _read_layers(config: CaptureConfig, model: ModelFiles) -> tuple[int, ...]:
    shape = model_shape(model)
    layers = tuple(shape.layer(k, "dump.layers") for k in config.layers)
    if len(set(layers)) < len(layers):
        raise ConfigError(
            f"dump.layers: {list(config.layers)} names a block twice ({shape.n_blocks} blocks)."
        )
    return layers


def tokenize_rows(
    rows: Sequence[Conversation],
    tokenizer: Any,
    config: CaptureConfig,
    *,
    longest: int,
    scratch: Path | None = None,
) -> tuple[TokenTable, list[Dropped]]:
    """Tokenize rows and then their swapped conversations, and list the rows that are left out.

    Args:
        rows: conversations.
        tokenizer: the target's.
        config: what happens to a row that is too long, and which splits are swapped.
        longest: most tokens of a row.
        scratch: as of `TokenTable`.

    Raises:
        DataError: a row is to be refused, or none is left.
    """
    dropped: list[Dropped] = []
    swappable: list[Conversation] = []
    their_tokens: dict[str, Tokens] = {}

    def kept() -> Iterator[tuple[str, Tokens]]:
        for row in rows:
            where = f"example {row.example_id} ({row.label}, view {row.view})"
            try:
                tokens = tokenize_row(tokenizer, row)
            except DataError as error:
                dropped.append(_dropped(row, "template", where, str(error)))
                continue
            if len(tokens.ids) <= longest:
                if is_swappable(row, config.swapped):
                    swappable.append(row)
                    their_tokens[row.example_id] = tokens
                yield row.example_id, tokens
                continue
            detail = (
                f"{len(tokens.ids)} tokens, expected at most {longest} "
                "(dump.max_tokens, or the model's own limit)"
            )
            if config.too_long == "refuse":
                raise DataError(
                    f"{where} has {detail}. Raise dump.max_tokens, or set dump.too_long to drop."
                )
            dropped.append(_dropped(row, "too_long", where, detail))
        yield from tokenize_swapped(swappable, their_tokens, tokenizer, longest=longest)

    table = TokenTable(kept(), scratch=scratch)
    if not len(table):
        why = f"{dropped[0].where}: {dropped[0].detail}" if dropped else "the table is empty"
        raise DataError(f"dump: no conversation is left of {len(rows)}; the first reason: {why}")
    return table, dropped


def _dropped(row: Conversation, reason: str, where: str, detail: str) -> Dropped:
    return Dropped(reason=reason, where=where, detail=detail, raw=row.example_id)


def plan_store(out: Path, prepared: PreparedDump, reusable: Sequence[Path] = ()) -> Plan:
    """Return the plan with which `out` was started, or a new one with whole shards of others."""
    alone = prepared.make_plan()
    if started := read_started_plan(out, prepared.tokens):
        plan_digest, shared = started
        again = prepared.make_plan(shared) if shared else alone
        if again.digest == plan_digest:
            return again
    shared = ReusableStores(reusable, alone).find_shards(alone, prepared.tokens)
    return prepared.make_plan(shared) if shared else alone
