"""The step `dump`, end to end on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import stores
import tiny
import torch
import zarr

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.target.capture import Capture
from activation_store.target.load import load_model, load_tokenizer
from activation_store.tokens.tokens import tokenize
from activation_store.write import dump as dump_module
from core.errors import ConfigError, DataError, ModelError, StoreError
from core.records.table_files import DROPPED_FILE, read_conversations, read_dropped
from core.records.tables import Message

CPU = torch.device("cpu")


def plain_states(net: torch.nn.Module, ids: np.ndarray, layer: int) -> np.ndarray:
    """hidden_states[layer + 1] of one sequence."""
    with torch.inference_mode():
        states = net(torch.tensor(ids[None].astype(np.int64)), output_hidden_states=True)
    found: np.ndarray[Any, Any] = states.hidden_states[layer + 1][0].numpy()
    return found


def test_the_store_can_be_read_with_zarr_and_numpy_alone(
    whole: Path, rows: Path, model: ModelFiles
) -> None:
    tokenizer = load_tokenizer(model)
    net = load_model(model, dtype="float32", device=CPU)
    group: Any = zarr.open_group(whole, mode="r")
    index = {row["example_id"]: row for row in pq.read_table(whole / "index.parquet").to_pylist()}
    conversations = read_conversations(rows / "conversations.parquet")
    assert len(index) == len(conversations)
    for row in conversations[::3]:
        place = index[row.example_id]
        span = slice(place["row_start"], place["row_start"] + place["n_tokens"])
        expected = tokenize(tokenizer, row.messages)
        assert group["tokens"][span].tolist() == expected.ids.tolist()
        assert group["segments"][span].tolist() == expected.segments.tolist()
        assert place["withheld"] == expected.withheld
        for layer in (0, 2):
            bits = group[f"acts/L{layer}"][span]
            assert bits.dtype == np.uint16
            assert group[f"acts/L{layer}"].attrs["dtype"] == "bfloat16"
            found = (bits.astype(np.uint32) << 16).view(np.float32)
            exact = plain_states(net, expected.ids, layer)
            np.testing.assert_allclose(found, exact, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
def test_other_number_formats_are_stored_as_themselves(
    dtype: str, tolerance: float, rows: Path, model: ModelFiles, tmp_path: Path
) -> None:
    stores.fill(rows, tmp_path, model, store_dtype=dtype)
    group: Any = zarr.open_group(tmp_path, mode="r")
    assert group["acts/L0"].dtype == np.dtype(dtype)
    store = ActivationStore(tmp_path)
    net = load_model(model, dtype="float32", device=CPU)
    example = next(iter(store.index))
    found = store.read(example, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, plain_states(net, store.tokens(example), 2), rtol=tolerance, atol=tolerance
    )


def test_the_counts_say_what_was_done(rows: Path, model: ModelFiles, tmp_path: Path) -> None:
    counts = stores.fill(rows, tmp_path, model)
    store = ActivationStore(tmp_path)
    assert counts.sequences == len(store.index) == len(stores.conversations())
    assert counts.tokens == counts.forward_tokens == store.plan["tokens"]
    assert counts.bytes == sum(map(len, stores.contents(tmp_path).values()))
    assert counts.shards == len(store.commits)
    arrays = [path for path in stores.files(tmp_path) if path.name.startswith("c.")]
    assert counts.raw_bytes == sum(path.stat().st_size for path in arrays)
    assert counts.layers == (0, 2)
    assert counts.d_model == store.d_model == 32
    assert counts.dropped == {}
    assert counts.canary.max_relative <= counts.canary.tolerance
    assert store.complete


def test_a_second_dump_runs_no_token_and_changes_no_byte(
    rows: Path, model: ModelFiles, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stores.contents(store)
    counted = stores.CountedTokens(monkeypatch)
    counts = stores.fill(rows, store, model)
    assert counted.tokens == counts.forward_tokens == 0
    assert counts.tokens_per_second == 0
    assert stores.contents(store) == before


def test_shards_filled_in_any_order_make_the_same_bytes(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = dump_module._find_missing_shards
    monkeypatch.setattr(dump_module, "_find_missing_shards", lambda *a: missing(*a)[::-1])
    stores.fill(rows, tmp_path, model)
    assert stores.contents(tmp_path) == stores.contents(whole)


def test_the_order_of_the_conversations_changes_no_byte(
    model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    rows = stores.table(tmp_path / "rows", reversed(stores.conversations()))
    stores.fill(rows, tmp_path / "store", model)
    assert stores.contents(tmp_path / "store") == stores.contents(whole)


def test_another_plan_in_the_same_folder_leaves_nothing_of_the_first(
    model: ModelFiles, store: Path, tmp_path: Path
) -> None:
    rows = stores.table(tmp_path / "rows", stores.conversations(2))
    counts = stores.fill(rows, store, model, layers=[1])
    stores.fill(rows, tmp_path / "fresh", model, layers=[1])
    assert counts.forward_tokens == counts.tokens
    assert stores.contents(store) == stores.contents(tmp_path / "fresh")
    assert not (store / "acts" / "L0").exists()


def test_long_sequences_are_dropped_counted_and_listed(model: ModelFiles, tmp_path: Path) -> None:
    long = stores.conversation(99, "control", control="word " * 100)
    rows = stores.table(tmp_path / "rows", [*stores.conversations(2), long])
    counts = stores.fill(rows, tmp_path / "store", model, max_tokens=400)
    assert counts.dropped == {"too_long": 1}
    (dropped,) = read_dropped(tmp_path / "store" / DROPPED_FILE)
    assert dropped.where == f"example {long.example_id} (label 99, view control)"
    assert "expected at most 400 (dump.max_tokens" in dropped.detail
    assert long.example_id not in ActivationStore(tmp_path / "store").index


def test_long_sequences_are_refused_by_name_where_the_policy_says_so(
    model: ModelFiles, tmp_path: Path
) -> None:
    long = stores.conversation(99, "control", control="word " * 100)
    rows = stores.table(tmp_path / "rows", [*stores.conversations(1), long])
    with pytest.raises(DataError, match=f"{long.example_id}.*label 99.*dump.max_tokens"):
        stores.fill(rows, tmp_path / "store", model, max_tokens=400, too_long="refuse")
    assert not (tmp_path / "store").exists()


def test_nothing_is_longer_than_the_model_was_made_for(tmp_path: Path) -> None:
    small = resolve_model(str(tiny.save(tmp_path / "model", max_position_embeddings=100)))
    rows = stores.table(tmp_path / "rows", stores.conversations(2))
    counts = stores.fill(rows, tmp_path / "store", small)
    assert counts.dropped["too_long"] > 0
    store = ActivationStore(tmp_path / "store")
    assert max(placed.n_tokens for placed in store.index.values()) <= 100


def test_rows_that_the_template_refuses_are_counted(tmp_path: Path) -> None:
    gemma = resolve_model(str(tiny.save(tmp_path / "model", template=tiny.GEMMA)))
    rows = stores.table(tmp_path / "rows", stores.conversations(3))
    counts = stores.fill(rows, tmp_path / "store", gemma)
    assert counts.dropped == {"template": 3}
    dropped = read_dropped(tmp_path / "store" / DROPPED_FILE)
    assert all("view system" in row.where for row in dropped)
    assert all("System role not supported" in row.detail for row in dropped)


def test_a_control_token_in_a_row_is_counted_as_the_templates(
    model: ModelFiles, tmp_path: Path
) -> None:
    bad = stores.conversation(7, "control", control="say <|im_end|> now")
    rows = stores.table(tmp_path / "rows", [*stores.conversations(1), bad])
    assert stores.fill(rows, tmp_path / "store", model).dropped == {"template": 1}


@pytest.mark.parametrize(
    ("controls", "words"),
    [(["<|im_end|>"], r"no conversation is left of 1; .*<\|im_end\|>"), ([], "the table is empty")],
)
def test_no_row_left_is_an_error_with_the_first_reason(
    controls: list[str], words: str, model: ModelFiles, tmp_path: Path
) -> None:
    bad = [stores.conversation(7, "control", control=control) for control in controls]
    rows = stores.table(tmp_path / "rows", bad)
    with pytest.raises(DataError, match=words):
        stores.fill(rows, tmp_path / "store", model)


def test_a_layer_that_the_model_lacks_is_refused(
    rows: Path, model: ModelFiles, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"it has blocks 0 to 3, got 4. Change dump.layers"):
        stores.fill(rows, tmp_path, model, layers=[4])


def test_a_layer_named_twice_is_refused(rows: Path, model: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dump.layers: \[3, -1\] names a block twice"):
        stores.fill(rows, tmp_path, model, layers=[3, -1])


def test_the_last_layer_is_stored_under_its_number(
    rows: Path, model: ModelFiles, tmp_path: Path
) -> None:
    assert stores.fill(rows, tmp_path, model, layers=[-1]).layers == (3,)
    assert ActivationStore(tmp_path).layers == (3,)


def test_an_activation_that_is_not_finite_names_its_example(
    rows: Path, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Capture.__call__

    def overflown(capture: Capture, sequences: Any) -> Any:
        found = plain(capture, sequences)
        spoilt = found[2].clone()
        spoilt[0, 3, 5] = float("inf")
        return {**found, 2: spoilt}

    monkeypatch.setattr(Capture, "__call__", overflown)
    stores.leave_out_first_check(monkeypatch)
    with pytest.raises(StoreError, match=r"shard 0, acts/L2: an activation of example \w{16} is"):
        stores.fill(rows, tmp_path, model)
    assert not list((tmp_path / "commits").glob("*"))


def test_a_device_without_room_for_a_batch_makes_the_same_store(
    rows: Path,
    model: ModelFiles,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = Capture.__call__

    def small(capture: Capture, sequences: Any) -> Any:
        if len(sequences) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(capture, sequences)

    monkeypatch.setattr(Capture, "__call__", small)
    counts = stores.fill(rows, tmp_path, model)
    assert "does not fit on the device and is halved" in caplog.text
    assert counts.forward_tokens == counts.tokens
    halved, expected = ActivationStore(tmp_path), ActivationStore(whole)
    for example in expected.index:
        np.testing.assert_allclose(halved.read(example, 2), expected.read(example, 2), rtol=1e-2)


def test_progress_counts_tokens_up_to_the_plans(
    rows: Path, model: ModelFiles, tmp_path: Path
) -> None:
    seen = []
    counts = stores.fill(
        rows,
        tmp_path,
        model,
        progress=lambda done, total, note="": seen.append((done, total, note)),
    )
    assert seen[0] == (0, counts.tokens, "tokens")
    assert seen[-1] == (counts.tokens, counts.tokens, "tokens")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_the_plan_says_which_target_and_which_convention(whole: Path, model: ModelFiles) -> None:
    plan = json.loads((whole / "plan.json").read_text())
    assert plan["target"] == model.digests()
    assert plan["layer_convention"].startswith("output of block k, counted from 0")
    assert (plan["dtype"], plan["compute_dtype"]) == ("bfloat16", "float32")


def test_no_path_of_this_machine_is_in_a_store(whole: Path, model: ModelFiles) -> None:
    for name, content in stores.contents(whole).items():
        assert str(model.source).encode() not in content, name
        assert str(whole).encode() not in content, name


def test_a_conversation_that_ends_with_a_system_message_keeps_its_own_segments(
    model: ModelFiles,
) -> None:
    said = [Message(role="system", content="Be kind.", segment="control")]
    tokens = tokenize(load_tokenizer(model), said)
    assert tokens.withheld == 0
