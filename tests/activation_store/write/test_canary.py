"""The second computation refuses a store that the first one got wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import stores
import tiny
import torch
import transformers
from transformers import MambaConfig, MixtralConfig, MllamaConfig, RwkvConfig

from activation_store.layout import plan_files
from activation_store.layout.commit_records import list_commit_paths
from activation_store.layout.plan import Plan, plan_layout
from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.target import adapter as module
from activation_store.target.capture import Capture
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens
from activation_store.write import canary, capture_shards, dump
from core.errors import ModelError, StoreError

Found = dict[int, torch.Tensor]
Wrapped = Callable[[Capture, Sequence[np.ndarray], Callable[..., Found]], Found]


def leak_padding(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    """Pad on the left, with no mask to hide it."""
    longest = max(map(len, sequences))
    padded = [np.concatenate([np.zeros(longest + 3 - len(s), s.dtype), s]) for s in sequences]
    found = plain(capture, padded)  # type: ignore[operator]
    return {
        k: torch.stack([torch.roll(v[i], len(s), 0) for i, s in enumerate(sequences)])
        for k, v in found.items()
    }


def swap_rows(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    return {k: v.flip(0) for k, v in plain(capture, sequences).items()}  # type: ignore[operator]


def wrong_layer(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    other = Capture(capture._net, [k - 1 for k in capture._layers])
    return {k + 1: v for k, v in plain(other, sequences).items()}  # type: ignore[operator]


def off_by_one(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    found = plain(capture, sequences)  # type: ignore[operator]
    return {k: v.roll(1, dims=1) for k, v in found.items()}


def swap_layers(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    a, b = capture._layers
    found = plain(capture, sequences)  # type: ignore[operator]
    return {a: found[b], b: found[a]}


def after_the_norm(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    net: Any = capture._net
    norm = net.get_decoder().norm
    return {k: norm(v) for k, v in plain(capture, sequences).items()}  # type: ignore[operator]


def half_precision(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    """As much as four bits of mantissa leave."""
    found = plain(capture, sequences)  # type: ignore[operator]
    return {k: v + 0.03 * v.norm(dim=-1, keepdim=True) / 32**0.5 for k, v in found.items()}


def not_a_number(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    found = plain(capture, sequences)  # type: ignore[operator]
    return {k: v.index_fill(1, torch.tensor([2]), torch.nan) for k, v in found.items()}


def missing_token(capture: Capture, sequences: Sequence[np.ndarray], plain: object) -> Found:
    """Leave the last token of each row out."""
    found = plain(capture, [ids[:-1] for ids in sequences])  # type: ignore[operator]
    return {k: torch.nn.functional.pad(v, (0, 0, 0, 1)) for k, v in found.items()}


FAULTS: list[Wrapped] = [
    missing_token,
    leak_padding,
    swap_rows,
    wrong_layer,
    off_by_one,
    swap_layers,
    after_the_norm,
    half_precision,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_the_capture_is_refused(
    fault: Wrapped, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Capture.__call__
    monkeypatch.setattr(
        Capture, "__call__", lambda capture, sequences: fault(capture, sequences, plain)
    )
    # equally long rows, so that a swap is a swap
    rows = stores.table(
        tmp_path / "rows", [stores.conversation(i, "stimulus") for i in (1, 4, 7, 11, 14, 17)]
    )
    with pytest.raises(StoreError, match=r"canary: layer \d of example \w{16} differs .* refused"):
        stores.fill(rows, tmp_path / "store", model, layers=[1, 2])
    assert not (tmp_path / "store" / "c").exists()  # before the first shard
    assert not list_commit_paths(tmp_path / "store")  # before the first shard


def test_what_is_not_finite_is_told_before_the_long_work(
    rows: Path, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Capture.__call__
    monkeypatch.setattr(
        Capture, "__call__", lambda capture, sequences: not_a_number(capture, sequences, plain)
    )
    told = r"layer \d: an activation of example \w{16} is not finite in bfloat16\. Use dump\.comp"
    with pytest.raises(StoreError, match=told):
        stores.fill(rows, tmp_path / "store", model)
    assert not list_commit_paths(tmp_path / "store")


def test_what_is_overwritten_behind_the_first_check_is_refused(
    rows: Path, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, kept = Capture.__call__, list[Found]()

    def overwrite(capture: Capture, sequences: Sequence[np.ndarray]) -> Found:
        """Give each batch the memory of the one before, as a graph that is replayed does."""
        found = plain(capture, sequences)
        kept.append(found)
        if len(kept) > 2:
            with torch.inference_mode():
                for values in kept[-2].values():
                    values.zero_()
        return found

    monkeypatch.setattr(Capture, "__call__", overwrite)
    with pytest.raises(StoreError, match=r"canary: layer \d of example \w{16} differs"):
        stores.fill(rows, tmp_path / "store", model, store_dtype="float32")
    assert not (tmp_path / "store" / "canary.json").exists()


def test_tokens_that_went_to_other_experts_are_told_from_errors() -> None:
    class Mixture(torch.nn.Linear):
        config = MixtralConfig(num_hidden_layers=1, num_local_experts=4)

    plan = plan_of(1)
    placed, expected = plan.index.at(0), np.ones((100, 4), np.float32)
    flipped, wrong = expected.copy(), expected.copy()
    flipped[::50], wrong[::5] = 3, 3

    def compare(found: np.ndarray) -> float:
        return canary._compare(Mixture(1, 1), plan, placed, np.arange(100), {1: found})

    with mock.patch.object(canary, "_compute_plainly", return_value={1: expected}):
        assert compare(flipped) == 0
        with pytest.raises(StoreError, match="differs"):
            compare(wrong)


def test_another_adapter_is_refused(
    rows: Path, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = (tiny.save_adapter(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    plain, loaded = module.load_adapter, []

    def load(net: torch.nn.Module, folder: Path) -> object:
        loaded.append(folder)
        return plain(net, wrong if len(loaded) == 1 else folder)  # the dump's, not the canary's

    adapted = resolve_model(model.ref, str(right))
    assert stores.fill(rows, tmp_path / "right", adapted).canary.rows == 8
    monkeypatch.setattr(module, "load_adapter", load)
    with pytest.raises(StoreError, match=r"canary: layer \d of example \w{16} differs .* refused"):
        stores.fill(rows, tmp_path / "store", adapted)
    assert loaded == [adapted.adapter] * 2


def misfiled(tokens: TokenTable) -> TokenTable:
    """Return a table in which each example has the tokens of the next, cut or repeated to fit."""
    others = list(tokens.values())[1:] + list(tokens.values())[:1]
    sizes = [len(value.ids) for value in tokens.values()]
    fitted = [
        Tokens(np.resize(t.ids, n), np.resize(t.segments, n), 0)
        for t, n in zip(others, sizes, strict=True)
    ]
    return TokenTable(zip(tokens, fitted, strict=True))


def test_activations_filed_under_another_example_are_refused(
    rows: Path, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = capture_shards.capture_shards

    def wrong(plan: Plan, shards: Iterable[int], *, tokens: TokenTable, **named: Any) -> Any:
        return plain(plan, shards, tokens=misfiled(tokens), **named)

    monkeypatch.setattr(dump, "capture_shards", wrong)
    with pytest.raises(StoreError, match=r"canary: layer 0 of example .* differs from a plain"):
        stores.fill(rows, tmp_path, model)


def test_tokens_filed_under_another_example_are_refused(
    rows: Path, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plan_files.write_plan

    def wrong(root: Path, plan: Plan, tokens: TokenTable, *more: Any) -> None:
        plain(root, plan, misfiled(tokens), *more)

    monkeypatch.setattr(dump, "write_plan", wrong)
    with pytest.raises(StoreError, match="canary: the store holds other tokens than those of"):
        stores.fill(rows, tmp_path, model)


@pytest.mark.parametrize("family", ["gemma3", "mistral", "gpt_neox"])
def test_other_families_agree_with_their_plain_forward_pass(family: str, tmp_path: Path) -> None:
    other = resolve_model(str(tiny.save(tmp_path / "model", family=family)))
    rows = stores.table(tmp_path / "rows", stores.conversations(3))
    counts = stores.fill(rows, tmp_path / "store", other, layers=[0, 2, -1], store_dtype="float32")
    assert counts.canary.max_relative < 1e-5


def test_bfloat16_computation_stays_within_its_tolerance(
    rows: Path, model: ModelFiles, tmp_path: Path
) -> None:
    verdict = stores.fill(rows, tmp_path, model, compute_dtype="bfloat16").canary
    assert 0 < verdict.max_relative <= verdict.tolerance < 0.06


def plan_of(n: int, first: int = 0) -> Plan:
    tokens = {
        f"e{i:03d}": Tokens(
            np.arange(first, first + 5 + i, dtype=np.int32), np.zeros(5 + i, np.uint8), 0
        )
        for i in range(n)
    }
    return plan_layout(
        TokenTable(tokens.items()), config=stores.CAPTURE, layers=(1,), d_model=4, target={}
    )


@pytest.mark.parametrize("n", [1, 3, 8, 50])
def test_the_sample_is_spread_over_the_lengths_and_fixed(n: int) -> None:
    sampled = canary.sample_sequences(plan_of(n), 8)
    assert sampled == canary.sample_sequences(plan_of(n), 8)
    assert len(sampled) == len({s.example_id for s in sampled}) == min(n, 8)
    if n == 50:
        gaps = np.diff(sorted(s.n_tokens for s in sampled))
        assert gaps.max() <= 8


def test_stores_are_judged_at_different_rows() -> None:
    sampled = [canary.sample_sequences(plan_of(50, first), 8) for first in range(6)]
    assert len({tuple(s.example_id for s in own) for own in sampled}) > 1


def saved(folder: Path, kind: str, config: Any) -> ModelFiles:
    torch.manual_seed(0)
    net: Any = getattr(transformers, kind)(config)
    with torch.no_grad():
        for values in net.parameters():
            values.add_(torch.randn_like(values) * 0.2)
    net.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return resolve_model(str(folder))


SHAPE: dict[str, Any] = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 4}
STATES: dict[str, tuple[str, Any]] = {
    "mamba": ("MambaForCausalLM", MambaConfig(**SHAPE, state_size=4)),
    "rwkv": ("RwkvForCausalLM", RwkvConfig(**SHAPE, context_length=512)),
    "mllama": (
        "MllamaForConditionalGeneration",
        MllamaConfig(
            text_config={
                **SHAPE,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 32,
                "cross_attention_layers": [1],
                "pad_token_id": 0,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            },
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_global_layers": 1,
                "attention_heads": 2,
                "image_size": 16,
                "patch_size": 8,
                "max_num_tiles": 1,
                "intermediate_layers_indices": [0],
                "vision_output_dim": 32,
                "supported_aspect_ratios": [[1, 1]],
            },
        ),
    ),
}


@pytest.mark.parametrize("family", STATES)
def test_a_family_that_lists_its_states_otherwise_is_dumped(family: str, tmp_path: Path) -> None:
    rows = stores.table(tmp_path / "rows", [stores.conversation(i, "control") for i in range(3)])
    model = saved(tmp_path / "model", *STATES[family])
    assert stores.fill(rows, tmp_path / "store", model, layers=(0, 2, 3)).canary.tokens > 0


def test_a_block_that_does_not_run_on_text_is_named(tmp_path: Path) -> None:
    rows = stores.table(tmp_path / "rows", [stores.conversation(1, "control")])
    model = saved(tmp_path / "model", *STATES["mllama"])
    with pytest.raises(ModelError, match=r"block 1 does not run on text alone .* Change dump.lay"):
        stores.fill(rows, tmp_path / "store", model, layers=(1,))
