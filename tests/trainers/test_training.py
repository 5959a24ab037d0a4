"""The step `train` on the tiny model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import chain
import pytest
import torch
from safetensors.torch import load_file

from activation_store.read.reader import ActivationStore
from core.errors import ConfigError, DataError, StorageError, StoreError
from core.records.table_files import DROPPED_FILE, read_dropped
from core.records.tables import Question
from decoder.binding import read_sidecar
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder
from decoder.normalisation import STATISTICS_FILE, ActivationStatistics
from decoder.visible_tokens import ReadLayers
from trainers.config import LOG_FILE, TrainConfig
from trainers.data.dataset import RowDataset
from trainers.data.decoder_inputs import make_activation_inputs
from trainers.data.rows import load_rows, select
from trainers.loop import checkpoints, trainer
from trainers.loop.trainer import compute_validation_loss
from trainers.training import train

ADAPTER = "adapter_model.safetensors"
CONFIG = TrainConfig(
    decoder=DecoderConfig(normalisation="standardise"),
    lora=LoraSettings(rank=4, alpha=8, dropout=0.1),
    views=("control",),
    rows_per_batch=3,
    accumulation=2,
    epochs=3,
    learning_rate=1e-2,
    seed=1,
)
"""16 rows: 6 batches and 3 steps an epoch, the last batch of one row; checkpoints at 3, 6 and 9."""


class Steps:
    """A listener that keeps the steps."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self.seen.append(done)


def run(made: chain.Chain, folder: Path, config: TrainConfig = CONFIG, **kwargs: Any) -> Any:
    """Train into `folder`/out with `folder`/work; goes on where it stopped."""
    return train(*made.places(folder), config=config, runtime=chain.RUNTIME, **kwargs).to_json()


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    return chain.make(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def undisturbed(made: chain.Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "counts.json").write_text(json.dumps(run(made, folder)))
    return folder


def test_loss_falls_on_a_set_that_can_be_learned(undisturbed: Path) -> None:
    losses = [line["loss"] for line in chain.log(undisturbed) if "loss" in line]
    counts = json.loads((undisturbed / "counts.json").read_text())
    assert losses[-1] < losses[0] - 1
    assert counts["validation"] < counts["untrained_validation"] - 1


def test_counts_say_what_was_trained(undisturbed: Path) -> None:
    counts = json.loads((undisturbed / "counts.json").read_text())
    assert counts["steps"] == 9
    assert counts["rows"] == 16
    assert counts["questions"] == 3 * 16 * 2
    assert counts["questions_per_second"] > 0
    assert counts["trainable_parameters"] == sum(
        values.numel() for values in load_file(undisturbed / "out" / ADAPTER).values()
    )


def test_the_last_checkpoint_is_handed_on_where_that_is_wanted(
    made: chain.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([5.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(trainer, "compute_validation_loss", lambda *args: next(told))
    counts = run(made, tmp_path, CONFIG.model_copy(update={"max_steps": 3, "keep": "last"}))
    assert (counts["best_step"], counts["validation"]) == (3, 3.0)


def test_noise_on_what_is_read_changes_training_and_not_validation(
    made: chain.Chain, tmp_path: Path
) -> None:
    logs = {}
    for noise in (0.0, 1.0):
        folder = tmp_path / str(noise)
        run(made, folder, CONFIG.model_copy(update={"max_steps": 1, "noise": noise}))
        logs[noise] = chain.log(folder)
    untrained = [lines[0]["validation"]["right"] for lines in logs.values()]
    assert untrained[0] == untrained[1]
    first = [next(line["loss"] for line in lines if "loss" in line) for lines in logs.values()]
    assert first[0] != first[1]


@pytest.mark.parametrize("killed", [False, True])
def test_training_ends_where_validation_no_longer_falls(
    made: chain.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    curve = iter([5.0, 3.0, 2.0, 2.5, 2.1, 1.0])
    monkeypatch.setattr(trainer, "compute_validation_loss", lambda *given: next(curve))
    config = CONFIG.model_copy(update={"evaluations": 9, "patience": 2})
    if killed:  # after the last step, before anything is written

        def fail(*given: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Decoder, "save", fail)
            with pytest.raises(KeyboardInterrupt):
                run(made, tmp_path, config)
    counts = run(made, tmp_path, config)
    assert (counts["steps"], counts["best_step"], counts["validation"]) == (4, 2, 2.0)
    assert [line["step"] for line in chain.log(tmp_path) if "validation" in line] == [0, 1, 2, 3, 4]


def test_speed_memory_and_waiting_stand_in_the_counts(undisturbed: Path) -> None:
    counts = json.loads((undisturbed / "counts.json").read_text())
    assert counts["tokens_per_second"] > counts["questions_per_second"] > 0
    assert 0 <= counts["data_wait"] < 1
    assert counts["peak_memory_gb"] > 0.05
    assert not any("per_second" in name for line in chain.log(undisturbed) for name in line)


def test_questions_that_cannot_be_written_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = chain.rows_of(splits={"train": 4, "validation": 2})
    own = rows[0][0].example_id
    rows[0][1].append(Question(example_id=own, question="Is it <|im_end|>?", answer="no"))
    rows[1] = (rows[1][0], [Question(example_id=rows[1][0].example_id, question="?", answer="")])
    bad = chain.make(tmp_path / "chain", rows)
    counts = run(bad, tmp_path, CONFIG.model_copy(update={"epochs": 1}))
    assert counts["dropped"] == {"unwritable": 2}
    assert (counts["rows"], counts["questions"]) == (3, 6)
    dropped = {row.detail: row for row in read_dropped(tmp_path / "out" / DROPPED_FILE)}
    (token,) = [row for detail, row in dropped.items() if "control token <|im_end|>" in detail]
    assert own in token.where
    assert "the answer is empty." in dropped


def test_the_output_is_an_adapter_its_binding_and_the_log(
    made: chain.Chain, undisturbed: Path
) -> None:
    assert sorted(outputs(undisturbed)) == [
        "adapter_config.json",
        ADAPTER,
        "latentqa.json",
        LOG_FILE,
        STATISTICS_FILE,
    ]
    config, binding = read_sidecar(undisturbed / "out")
    assert config == CONFIG.decoder
    assert binding.read_layer == chain.LAYER
    assert binding.target == made.model.digests()


def test_the_log_has_every_step_and_the_last_is_validated(undisturbed: Path) -> None:
    lines = chain.log(undisturbed)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 10))
    assert [line["step"] for line in lines if "validation" in line] == [0, 3, 6, 9]


def test_the_curve_begins_with_the_untrained_decoder(made: chain.Chain, undisturbed: Path) -> None:
    store = ActivationStore(made.store)
    decoder = chain.decoder(made, seed=9, normalisation="standardise")
    decoder.use_statistics(ActivationStatistics.load(undisturbed / "out"))
    rows = load_rows(made.conversations, made.questions, store)
    chosen = select(rows, split="validation", views=("control",), most=32, seed=CONFIG.seed)
    inputs = make_activation_inputs(
        store, layers=lambda example, epoch: ReadLayers((chain.LAYER,)), masking=True
    )
    dataset = RowDataset(chosen, inputs, decoder.prompt)
    first = next(line for line in chain.log(undisturbed) if "validation" in line)
    assert first["validation"]["right"] == pytest.approx(compute_validation_loss(decoder, dataset))


@pytest.mark.parametrize(("deaths", "left"), [((4, 5), [4, 5, 6, 7, 8, 9]), ((9,), [7, 8, 9])])
def test_a_run_killed_again_and_again_gives_the_same_bytes_and_repeats_no_segment(
    made: chain.Chain,
    undisturbed: Path,
    tmp_path: Path,
    deaths: tuple[int, ...],
    left: list[int],
) -> None:
    for step in deaths:
        chain.killed(train, step, *made.places(tmp_path), config=CONFIG, runtime=chain.RUNTIME)
    steps = Steps()
    run(made, tmp_path, progress=steps)
    assert steps.seen == left
    assert outputs(tmp_path) == outputs(undisturbed)


def test_a_run_killed_after_its_last_checkpoint_trains_no_more(
    made: chain.Chain, tmp_path: Path
) -> None:
    # two steps end within the first pass, where transformers would go on
    config = CONFIG.model_copy(update={"max_steps": 2})
    run(made, tmp_path, config)
    whole = outputs(tmp_path)
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    steps = Steps()
    counts = run(made, tmp_path, config, progress=steps)
    assert steps.seen == []
    assert counts["questions_per_second"] == 0.0
    assert outputs(tmp_path) == whole


def test_a_half_written_checkpoint_is_not_gone_on_from(
    made: chain.Chain, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed / "work", tmp_path / "work")
    damaged = tmp_path / "work" / "checkpoint-9" / "optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    steps = Steps()
    run(made, tmp_path, progress=steps)
    assert steps.seen == [7, 8, 9]
    assert outputs(tmp_path) == outputs(undisturbed)


def test_a_folder_moved_between_two_attempts_makes_no_difference(
    made: chain.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"max_steps": 3})
    told = iter([4.0, 1.0, 2.0, 3.0])  # the best checkpoint is one of the first attempt
    monkeypatch.setattr(trainer, "compute_validation_loss", lambda *args: next(told))
    run(made, tmp_path / "old", config)
    os.rename(tmp_path / "old", tmp_path / "new")
    whole = outputs(tmp_path / "new")
    shutil.rmtree(tmp_path / "new" / "work" / "checkpoint-3")
    told = iter([3.0])
    assert run(made, tmp_path / "new", config)["best_step"] == 1
    assert outputs(tmp_path / "new") == whole


def test_the_checkpoint_with_the_lowest_validation_is_saved(
    made: chain.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([0.5, 3.0, 1.0, 2.0])  # the untrained decoder's is the lowest, and no checkpoint
    monkeypatch.setattr(trainer, "compute_validation_loss", lambda *args: next(told))
    counts = run(made, tmp_path, CONFIG.model_copy(update={"max_steps": 3}))
    assert (counts["best_step"], counts["validation"]) == (2, 1.0)
    saved = load_file(tmp_path / "out" / ADAPTER)
    for step, same in ((1, False), (2, True), (3, False)):
        kept = load_file(checkpoints.checkpoint_folder(tmp_path / "work", step) / ADAPTER)
        assert all(torch.equal(saved[name], kept[name]) for name in saved) == same


def test_accumulated_batches_and_passes_are_one_larger_batch(tmp_path: Path) -> None:
    made = chain.make(tmp_path / "chain", chain.rows_of(splits={"train": 4, "validation": 1}))
    config = TrainConfig(
        lora=LoraSettings(rank=4), views=("control",), max_steps=1, warmup=0.0, evaluations=1
    )
    adapters, losses = [], []
    for batch, accumulation, tokens in ((4, 1, 9999), (2, 2, 9999), (1, 4, 9999), (4, 1, 1)):
        own = {"rows_per_batch": batch, "accumulation": accumulation, "micro_batch_tokens": tokens}
        folder = tmp_path / f"{batch} {tokens}"
        run(made, folder, config.model_copy(update=own))
        line = next(line for line in chain.log(folder) if "loss" in line)
        losses.append((line["loss"], line["grad_norm"]))
        adapters.append(load_file(folder / "out" / ADAPTER))
    for pair in losses[1:]:
        assert pair == pytest.approx(losses[0], rel=1e-5)
    for other in adapters[1:]:
        for name, values in adapters[0].items():
            torch.testing.assert_close(other[name], values, rtol=1e-3, atol=1e-6)


def test_training_prints_and_warns_nothing(
    made: chain.Chain, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.model_copy(update={"max_steps": 2})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run(made, tmp_path, config)
    assert capfd.readouterr() == ("", "")
    ours = [w for w in told if not issubclass(w.category, DeprecationWarning)]
    assert [str(w.message) for w in ours] == []


def test_a_store_of_another_target_is_refused(made: chain.Chain, tmp_path: Path) -> None:
    other = made.places(tmp_path, model=chain.model(1))
    with pytest.raises(StoreError, match="another target: weights is"):
        train(*other, config=CONFIG, runtime=chain.RUNTIME)


@pytest.mark.parametrize("read", [{"read_layer": 0.75}, {"read_layers": (0.75,)}])
def test_a_read_layer_is_saved_as_the_number_of_its_block(
    made: chain.Chain, tmp_path: Path, read: dict[str, Any]
) -> None:
    config = CONFIG.model_copy(update={"decoder": DecoderConfig(**read), "max_steps": 1})
    run(made, tmp_path, config)
    saved, binding = read_sidecar(tmp_path / "out")
    assert (saved.read_layers or (saved.read_layer,)) == (chain.LAYER,)
    assert binding.read_layer == chain.LAYER


def test_two_names_of_one_block_are_refused(made: chain.Chain, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"decoder": DecoderConfig(read_layers=(chain.LAYER, 0.75))})
    with pytest.raises(ConfigError, match="names a block twice"):
        run(made, tmp_path, config)


def test_a_layer_that_is_not_stored_is_refused(made: chain.Chain, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"decoder": DecoderConfig(read_layer=1)})
    with pytest.raises(StoreError, match=r"it has layers \[2\], got 1"):
        run(made, tmp_path, config)


def test_views_without_rows_are_refused(made: chain.Chain, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of split train in views system"):
        run(made, tmp_path, CONFIG.model_copy(update={"views": ("system",)}))


def test_a_training_that_diverges_is_stopped_with_what_to_do(
    made: chain.Chain, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "accumulation": 1, "warmup": 0.0})
    with pytest.raises(ConfigError, match=r"is nan at step \d+.*Lower train.learning_rate"):
        run(made, tmp_path, config)
    assert outputs(tmp_path) == {}


def test_a_full_disk_is_one_line_and_leaves_whole_checkpoints(
    made: chain.Chain, undisturbed: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        (disk / "filler").write_bytes(bytes(800_000))
        with pytest.raises(StorageError, match=r"the disk is full\. Finished work is kept"):
            run(made, disk)
        (disk / "filler").unlink()
        run(made, disk)
        assert outputs(disk) == outputs(undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
