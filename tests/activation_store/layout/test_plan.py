"""The layout of a store, decided from tokens and config alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan, plan_layout
from activation_store.layout.plan_files import describe_plan
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens
from core.errors import ConfigError

TARGET = {"weights": "w"}
CONFIG = CaptureConfig(shard_rows=256, chunk_rows=32, batch_tokens=200)


def tokens(length: int, *, first: int = 7, withheld: int = 0) -> Tokens:
    ids = np.arange(first, first + length, dtype=np.int32)
    return Tokens(ids, np.zeros(length, np.uint8), withheld)


def plan_of(rows: dict[str, Tokens], config: CaptureConfig = CONFIG, **changes: object) -> Plan:
    given = {"layers": (1,), "d_model": 8, "target": TARGET, **changes}
    return plan_layout(TokenTable(rows.items()), config=config, **given)  # type: ignore[arg-type]


def rows_of(lengths: list[int]) -> dict[str, Tokens]:
    return {f"e{i:03d}": tokens(n, first=i) for i, n in enumerate(lengths)}


lengths = st.lists(st.integers(1, 256), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(lengths)
def test_every_sequence_lies_in_one_shard_and_none_overlap(lengths: list[int]) -> None:
    plan = plan_of(rows_of(lengths))
    taken = np.zeros(plan.n_shards * plan.shard_rows, bool)
    for s in plan.index.values():
        assert s.row_start // plan.shard_rows == s.shard
        assert (s.row_start + s.n_tokens - 1) // plan.shard_rows == s.shard
        assert not taken[s.row_start : s.row_start + s.n_tokens].any()
        taken[s.row_start : s.row_start + s.n_tokens] = True
    assert sorted(s.example_id for s in plan.index.values()) == sorted(rows_of(lengths))
    assert plan.tokens == sum(lengths)
    assert plan.shard_rows % plan.chunk_rows == 0


@settings(max_examples=60, deadline=None)
@given(lengths)
def test_batches_hold_each_sequence_once_and_keep_to_the_budget(lengths: list[int]) -> None:
    plan = plan_of(rows_of(lengths))
    for shard in range(plan.n_shards):
        batches = list(plan.batches(shard))
        assert [s for batch in batches for s in batch] == plan.shard(shard)
        for batch in batches:
            padded = len(batch) * max(s.n_tokens for s in batch)
            assert padded <= plan.batch_tokens or len(batch) == 1


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = rows_of([5, 90, 5, 200, 31])
    one, other = plan_of(rows), plan_of(dict(reversed(rows.items())))
    assert describe_plan(one) == describe_plan(other)
    assert one.index.to_parquet() == other.index.to_parquet()


def test_neighbours_are_equally_long() -> None:
    plan = plan_of(rows_of([50, 10, 50, 10, 50, 10]))
    assert [s.n_tokens for s in plan.index.values()] == [10, 10, 10, 50, 50, 50]


@pytest.mark.parametrize(
    "changed",
    [
        lambda rows: {**rows, "e000": tokens(9, first=8)},
        lambda rows: {**rows, "e000": replace(rows["e000"], withheld=3)},
        lambda rows: {**rows, "e000": replace(rows["e000"], segments=np.ones(9, np.uint8))},
        lambda rows: {**rows, "new": tokens(9)},
    ],
)
def test_the_digest_follows_tokens_segments_and_what_is_withheld(
    changed: Callable[[dict[str, Tokens]], dict[str, Tokens]],
) -> None:
    rows = rows_of([9, 40])
    assert plan_of(changed(rows)).digest != plan_of(rows).digest


def test_the_digest_follows_config_layers_and_target() -> None:
    rows = rows_of([9, 40])
    others = [
        plan_of(rows, CONFIG.model_copy(update={"store_dtype": "float32"})),
        plan_of(rows, layers=(2,)),
        plan_of(rows, target={"weights": "other"}),
    ]
    assert len({plan_of(rows).digest, *(other.digest for other in others)}) == 4


def test_a_small_store_is_one_small_shard() -> None:
    plan = plan_of(rows_of([10, 30]))
    assert (plan.n_shards, plan.shard_rows) == (1, 64)


def test_a_sequence_that_fits_no_shard_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dump.shard_rows: a sequence has 300 tokens .* got 256"):
        plan_of(rows_of([300]))


def test_shards_are_whole_chunks() -> None:
    with pytest.raises(ValidationError, match="shard_rows 300 is not a multiple of chunk_rows 64"):
        CaptureConfig(shard_rows=300, chunk_rows=64)
    with pytest.raises(ValidationError, match="shard_rows 300 is not a multiple of chunk_rows 256"):
        CaptureConfig(shard_rows=300)


@pytest.mark.parametrize(
    ("d_model", "settings", "rows"),
    [
        (576, {}, (8192, 256)),
        (4096, {"store_dtype": "float32"}, (8192, 256)),
        (64, {}, (131_072, 4096)),
        (64, {"store_dtype": "float32"}, (65_536, 2048)),
        (576, {"max_tokens": 100_000}, (8192, 256)),
        (576, {"chunk_rows": 64}, (8192, 64)),
        (64, {"chunk_rows": 1000}, (9000, 1000)),
        (64, {"shard_rows": 2560}, (2560, 512)),
        (64, {"shard_rows": 512, "chunk_rows": 32}, (512, 32)),
    ],
)
def test_shards_of_a_narrow_target_have_more_rows(
    d_model: int, settings: dict[str, object], rows: tuple[int, int]
) -> None:
    config = CaptureConfig.model_validate(settings)
    assert config.shard_and_chunk_rows(d_model) == rows


def test_a_shard_takes_the_longest_sequence() -> None:
    rows = rows_of([9000, 30, 8000])
    plan = plan_of(rows, CaptureConfig(max_tokens=10_000), d_model=576)
    assert (plan.n_shards, plan.shard_rows) == (2, 9216)


def test_a_plan_is_the_same_whether_its_rows_are_named_or_not() -> None:
    rows = rows_of([10, 30])
    named = plan_of(rows, CaptureConfig(shard_rows=8192, chunk_rows=256), d_model=576)
    assert plan_of(rows, CaptureConfig(), d_model=576).digest == named.digest


@pytest.mark.parametrize("layers", [(), (1, 1), (-2,), (1.0,), (1.5,), (0.0,), (0.5, 0.5)])
def test_layers_are_distinct_blocks_or_depths(layers: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="; expected "):
        CaptureConfig(layers=layers)


def test_a_plan_takes_some_bytes_a_sequence() -> None:
    n = 10_000
    rows = TokenTable((f"{i:016x}", tokens(4, first=i)) for i in range(n))
    tracemalloc.start()
    plan = plan_layout(rows, config=CaptureConfig(), layers=(1,), d_model=8, target=TARGET)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.index) == n
    assert kept < 50 * n, "a Python object a sequence takes more"
    assert peak < 300 * n
