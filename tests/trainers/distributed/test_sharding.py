"""Processes of which each holds a share of the base's weights: the losses of one alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import chain
import decoders
import pytest
import torch
from safetensors.torch import load_file

from activation_store.write.dump import dump
from core.errors import ConfigError
from core.processes.launch import run_distributed
from core.progress import Progress, silent
from core.runtime import Runtime
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder
from decoder.normalisation import STATISTICS_FILE
from trainers.config import LOG_FILE, TrainConfig
from trainers.distributed.processes import DistributedContext
from trainers.distributed.sharding import make_sharded
from trainers.training import train

RUNTIME = Runtime(device="cpu", threads=1, sharding="full")
CONFIG = TrainConfig(
    decoder=DecoderConfig(normalisation="standardise"),
    lora=LoraSettings(rank=4),
    views=("control",),
    max_rows=12,
    rows_per_batch=4,
    epochs=2,
    evaluations=2,
    learning_rate=1e-2,
    micro_batch_tokens=250,
)
ONE_EPOCH = CONFIG.model_copy(update={"epochs": 1})
CASES: Mapping[str, tuple[str, TrainConfig]] = {
    "packed": ("llama", CONFIG),
    # two rows a micro-batch where they are short, else one: now and then a process has one, the
    # other two
    "accumulation": (
        "llama",
        CONFIG.model_copy(update={"accumulation": 2, "micro_batch_tokens": 260}),
    ),
    "dropout": ("llama", CONFIG.model_copy(update={"lora": LoraSettings(rank=4, dropout=0.1)})),
    "prefix": ("gpt_neox", ONE_EPOCH),
    "window": ("gemma3", ONE_EPOCH),
    "bfloat16": ("llama", ONE_EPOCH.model_copy(update={"precision": "bfloat16"})),
    "live": ("llama", ONE_EPOCH),
    "head": (
        "qwen3",
        ONE_EPOCH.model_copy(
            update={"lora": LoraSettings(rank=4, targets=("q_proj", "lm_head", "embed_tokens"))}
        ),
    ),
}
"""Family and settings; `prefix` and `window` run the prefix by itself, and its cache after it."""


def run(name: str, made: chain.Chain, folder: Path, runtime: Runtime, progress: Progress) -> None:
    """Train a case, as the environment says."""
    torch.set_num_threads(1)
    config = CASES[name][1]
    patch = pytest.MonkeyPatch()
    if name == "prefix":
        patch.setattr("decoder.model.can_pack", lambda net: False)
    live = {"store": None, "capture": chain.CAPTURE} if name == "live" else {}
    train(*made.places(folder, **live), config=config, runtime=runtime, progress=progress)
    patch.undo()


def every(made: Mapping[str, chain.Chain], folder: Path, *, progress: Progress) -> dict[str, Any]:
    """All cases in the same processes, but for the one whose test trains it itself."""
    for name, (family, _) in CASES.items():
        if name == "dropout":
            continue
        run(name, made[family], folder / name, RUNTIME, progress)
    return {}


def dropout(
    made: chain.Chain, folder: Path, die_at: int | None, *, progress: Progress
) -> dict[str, Any]:
    """Train the case `dropout`; the second process kills itself at the step `die_at`."""

    def follow(done: int, total: int, note: str = "") -> None:
        if done == die_at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    run("dropout", made, folder, RUNTIME, follow)
    return {}


def shares(made: chain.Chain, *, progress: Progress) -> dict[str, Any]:
    """Numbers that this process holds of the base and of the adapter."""

    def make(device: torch.device) -> Decoder:
        return Decoder.create(
            made.model,
            config=DecoderConfig(normalisation="none"),
            lora=LoraSettings(rank=4),
            binding=Binding(read_layer=2, target=made.model.digests(), model=made.model.ref),
            dtype="float32",
            device=device,
            seed=0,
        )

    net = make_sharded(make, DistributedContext.from_environment(RUNTIME)).net
    weights = dict(net.named_parameters())
    held = {n: getattr(w, "to_local", lambda w=w: w)().numel() for n, w in weights.items()}
    return {
        "base": (
            sum(held[n] for n in held if "lora" not in n),
            sum(w.numel() for n, w in weights.items() if "lora" not in n),
        ),
        "adapter": (
            sum(held[n] for n in held if "lora" in n),
            sum(w.numel() for n, w in weights.items() if "lora" in n),
        ),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, chain.Chain]:
    folder = tmp_path_factory.mktemp("chain")
    rows = chain.rows_of(splits={"train": 16, "validation": 2})
    out = {"llama": chain.make(folder / "llama", rows)}
    for family in ("gpt_neox", "gemma3", "qwen3"):
        store = folder / family
        store.mkdir()
        model = decoders.model(family)
        tables = out["llama"].conversations
        dump(tables, store, config=chain.CAPTURE, model=model, runtime=chain.RUNTIME)
        out[family] = replace(out["llama"], store=store, model=model)
    return out


@pytest.fixture(scope="module")
def two(made: dict[str, chain.Chain], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    with chain.forked_processes():
        run_distributed(every, 2, made, folder, progress=silent)
    return folder


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / "adapter_model.safetensors")


def assert_same(folder: Path, alone: Path, *, rel: float = 1e-4) -> None:
    assert chain.losses(folder) == pytest.approx(chain.losses(alone), rel=rel)
    one, other = adapter(alone), adapter(folder)
    assert one.keys() == other.keys()
    for name, values in one.items():
        torch.testing.assert_close(other[name], values, rtol=100 * rel, atol=rel)


@pytest.mark.parametrize("name", ["packed", "accumulation", "prefix", "window", "live", "head"])
def test_shares_train_as_one_process_with_all(
    made: dict[str, chain.Chain], two: Path, tmp_path: Path, name: str
) -> None:
    run(name, made[CASES[name][0]], tmp_path, chain.RUNTIME, silent)
    assert_same(two / name, tmp_path)


def test_a_base_of_half_precision_is_shared_beside_an_adapter_of_full(
    made: dict[str, chain.Chain], two: Path, tmp_path: Path
) -> None:
    run("bfloat16", made["llama"], tmp_path, chain.RUNTIME, silent)
    assert chain.losses(two / "bfloat16") == pytest.approx(chain.losses(tmp_path), rel=2e-2)
    assert {values.dtype for values in adapter(two / "bfloat16").values()} == {torch.float32}


def test_what_is_saved_is_the_adapter_of_one_process_and_nothing_else(
    made: dict[str, chain.Chain], two: Path
) -> None:
    names = {p.name for p in (two / "packed" / "out").iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "latentqa.json",
        LOG_FILE,
        STATISTICS_FILE,
    }
    assert all("lora_" in name for name in adapter(two / "packed"))
    loaded = Decoder.load(two / "packed" / "out", made["llama"].model, "float32", chain.RUNTIME)
    state = loaded.net.state_dict()
    saved = adapter(two / "packed")
    for name, values in saved.items():
        stem, kind = name.rsplit(".lora_", 1)
        own = state[f"{stem}.lora_{kind.replace('.weight', '.default.weight')}"]
        torch.testing.assert_close(own, values, rtol=0, atol=0)


@pytest.mark.prove
def test_killed_and_resumed_they_end_with_the_bits_of_an_undisturbed_run(
    made: dict[str, chain.Chain], tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    run_distributed(dropout, 2, made["llama"], undisturbed, None, progress=silent)
    with pytest.raises(RuntimeError, match="died"):
        run_distributed(dropout, 2, made["llama"], tmp_path, 4, progress=silent)
    assert (tmp_path / "work" / "checkpoint-3").is_dir()
    run_distributed(dropout, 2, made["llama"], tmp_path, None, progress=silent)
    for name in (LOG_FILE, "adapter_model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (undisturbed / "out" / name).read_bytes()


def test_each_holds_its_share_of_the_base_and_the_whole_adapter(
    made: dict[str, chain.Chain],
) -> None:
    with chain.forked_processes():
        found = run_distributed(shares, 2, made["llama"], progress=silent)
    held, whole = found["base"]
    assert held == whole // 2
    held, whole = found["adapter"]
    assert held == whole


SCRIPT = """
import json, sys
from pathlib import Path
import chain, test_sharding
made = {k: Path(v) for k, v in json.loads(sys.argv[1]).items()}
made = chain.Chain(**made, model=chain.resolve_model(sys.argv[2]))
test_sharding.run("packed", made, Path(sys.argv[3]), test_sharding.RUNTIME, test_sharding.silent)
"""


@pytest.mark.prove
def test_a_script_of_torchrun_shares_them_too(
    made: dict[str, chain.Chain], two: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    own = made["llama"]
    tables = {k: str(getattr(own, k)) for k in ("conversations", "questions", "store")}
    paths = [str(Path(__file__).parents[n]) for n in (3, 2, 0)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(tmp_path / "script.py"), json.dumps(tables)]
    done = subprocess.run(
        [*command, str(own.model.source), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert chain.losses(tmp_path) == chain.losses(two / "packed")


def test_one_process_has_nothing_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="got full with one process, expected at least two"):
        DistributedContext.from_environment(RUNTIME)


def test_a_device_that_torch_does_not_shard_on_is_refused() -> None:
    distributed = DistributedContext(
        world_size=2, rank=0, device=torch.device("mps"), shards_base=True
    )
    with pytest.raises(ConfigError, match="got full on mps; torch shards on cpu and cuda"):
        make_sharded(lambda device: pytest.fail("made"), distributed)
