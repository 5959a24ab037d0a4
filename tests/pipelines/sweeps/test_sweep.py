"""Sweeps: shared steps once, failures told, interruptions gone on from, points side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chain
import pyarrow.parquet as pq
import pytest
import tiny
from command_line import Called
from fake_steps import FakeSteps, use_fake_steps

from activation_store.target.capture import Capture
from core.errors import ModelError
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.sweep_points import plan_sweep
from pipelines.reports.sweep.page import write_sweep
from pipelines.sweeps.sweep import Sweep

pytestmark = pytest.mark.usefixtures("unrendered")

TINY = """
experiment: tiny
generate:
  conversations:
    kinds:
      profile: {{controls: 20, views: [control]}}
    splits: {{validation: 0.1, test: 0.2}}
  questions: {{per_control: 2}}
dump: {{model: {model}, layers: [1], store_dtype: float32}}
train: {{views: [control], lora: {{rank: 2}}, max_steps: 1, evaluations: 1, validation_rows: 1}}
evaluate: {{splits: [test], views: [control], conditions: [right, other], answers: 0,
  bootstrap: 100, identification: 0}}
runtime: {{device: cpu, threads: 1}}
"""


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSteps:
    return use_fake_steps(tmp_path, monkeypatch)


def sweep(folder: Path, *vary: str, seeds: int = 1, file: str = "fake.yaml") -> Sweep:
    config = folder / file
    return Sweep(
        plan=plan_sweep(config, vary=vary, seeds=seeds),
        config=str(config),
        root=str(folder / "root"),
        command="latentqa sweep fake.yaml --set x.base_url=https://me:secret@host/v1",
    )


def test_steps_that_points_share_are_made_once(tmp_path: Path, steps: FakeSteps) -> None:
    found = sweep(tmp_path, "rank=2,4,8", seeds=2).run()
    made = [line.split()[0] for line in steps.written()]
    assert made.count("conversations") == made.count("dump") == 1
    assert made.count("train") == made.count("evaluate") == 6
    assert found.stores is not None
    assert (found.stores.stores, found.stores.forward_tokens) == (1, 50)


def test_a_sweep_again_makes_nothing(tmp_path: Path, steps: FakeSteps) -> None:
    first = sweep(tmp_path, "rank=2,4").run()
    steps.written()
    again = sweep(tmp_path, "rank=2,4").run()
    assert steps.written() == []
    assert [point.made for point in again.points] == [(), ()]
    assert again.settings() == first.settings()


def test_an_interrupted_sweep_goes_on(tmp_path: Path, steps: FakeSteps) -> None:
    def stop(step: str, piece: int) -> None:
        if step == "evaluate":
            raise KeyboardInterrupt

    steps.before_piece = stop
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, "rank=2,4").run()
    steps.before_piece = lambda step, piece: None
    steps.written()
    found = sweep(tmp_path, "rank=2,4").run()
    made = [line.split()[0] for line in steps.written()]
    assert made.count("train") == 1  # the first point's was finished
    assert len(found.points) == 2


def test_a_failed_point_is_told_and_the_rest_is_done(
    tmp_path: Path, steps: FakeSteps, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def fail(step: str, piece: int) -> None:
        if step == "train":
            calls.append(step)
            if len(calls) == 2:
                raise ModelError("the second training finds no model.")

    steps.before_piece = fail
    words = ("sweep", str(tmp_path / "fake.yaml"), "--vary", "rank=2,4,8")
    places = ("--root", str(tmp_path / "root"), "--out", str(tmp_path / "out"))
    done = Called(capsys, *words, *places, "--json")
    assert done.code == 1
    document = done.json()
    assert document["failed"] == {"rank=4 seed=0": "the second training finds no model."}
    assert document["points"] == ["fake_rank-2_seed-0", "fake_rank-8_seed-0"]
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert "the second training finds no model." in page
    assert "2 of 3" in page
    again = Called(capsys, *words, *places)
    assert again.code == 0
    assert "no model" not in again.out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModelError("no memory for this model."), "no memory for this model."),
        (MemoryError("of the device\nused up"), "MemoryError: of the device"),
    ],
)
def test_a_shared_step_that_fails_fails_its_points_alone(
    tmp_path: Path, steps: FakeSteps, error: Exception, said: str
) -> None:
    def fail(step: str, piece: int) -> None:
        if step == "dump" and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            raise error

    steps.before_piece = fail
    found = sweep(tmp_path, "dump.layers=[1],[2]").run()
    assert found.failed == (("dump.layers=[1] seed=0", said),)
    assert [point.label for point in found.points] == ["dump.layers=[2] seed=0"]


def test_tables_and_figures_hold_the_same_numbers(tmp_path: Path, steps: FakeSteps) -> None:
    found = sweep(tmp_path, "rank=2,4,8,16").run()
    page = write_sweep(found, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/rows.parquet").to_pylist()
    assert [row["rank"] for row in rows if row["metric"] == "right"] == [2, 4, 8, 16]
    csv = (tmp_path / "out/rows.csv").read_text().splitlines()
    assert len(csv) == 1 + len(rows)
    for form in ("svg", "png", "csv"):
        assert (tmp_path / f"out/figures/rank-right.{form}").is_file()
    assert "power law" in page.read_text()
    assert "https://host/v1" in page.read_text()
    assert "secret" not in page.read_text()
    (law,) = [row for row in found.fits() if row["metric"] == "right"]
    assert law["held_out"] == 16


class Counted:
    """The token sequences that the target was run on, but for those of checks: the canary's, and
    those that run without weights.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sequences: list[bytes] = []
        self.tokens = 0
        call = Capture.__call__

        def counting(capture: Capture, sequences: Any) -> Any:
            self.sequences += [ids.tobytes() for ids in sequences]
            self.tokens += sum(len(ids) for ids in sequences)
            return call(capture, sequences)

        monkeypatch.setattr(Capture, "__call__", counting)
        checks_own = type("ChecksOwn", (Capture,), {"__call__": call})
        for module in ("activation_store.write.canary", "activation_store.target.preflight"):
            monkeypatch.setattr(f"{module}.Capture", checks_own)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def test_no_activation_is_computed_twice(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY.format(model=tiny.save(tmp_path / "model")))
    controls = "generate.conversations.kinds.profile.controls=10,20"
    found = sweep(tmp_path, controls, file="tiny.yaml").run()
    assert not found.failed
    assert len(found.points) == 2
    assert found.stores is not None
    stores = ArtifactRoot(tmp_path / "root").artifacts("dump")
    largest = max(store.record["counts"]["tokens"] for store in stores)
    assert found.stores.stores == len(stores) == 2
    # two stores of nested rows: the target has run on those of the larger one, each once
    assert len(counted.sequences) == len(set(counted.sequences)) == 20
    assert counted.tokens == found.stores.forward_tokens == largest
    assert found.stores.stored_tokens > largest


@pytest.mark.prove
def test_four_sizes_and_two_seeds_give_curves_with_intervals_and_judge_the_largest(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    text = TINY.format(model=tiny.save(tmp_path / "model")).replace("controls: 20", "controls: 60")
    (tmp_path / "tiny.yaml").write_text(text)
    found = sweep(tmp_path, "rows=4,8,16,32", seeds=2, file="tiny.yaml").run()
    assert not found.failed
    assert len(found.points) == 8
    stores = ArtifactRoot(tmp_path / "root").artifacts("dump")
    assert len(stores) == 1
    assert counted.tokens == stores[0].record["counts"]["tokens"]
    assert len(counted.sequences) == len(set(counted.sequences)) == 60
    right = [row for row in found.settings() if row["metric"] == "right"]
    assert [(row["value"], row["seeds"]) for row in right] == [(n, 2) for n in (4, 8, 16, 32)]
    assert all(row["low"] < row["estimate"] < row["high"] for row in right)
    (law,) = [row for row in found.fits() if row["metric"] == "right"]
    assert law["held_out"] == 32
    assert law["inside"] == (law["predicted_low"] <= law["measured"] <= law["predicted_high"])
    page = write_sweep(found, tmp_path / "out").read_text()
    assert "lies in the prediction interval in" in page


@pytest.mark.parametrize("runner", [pytest.param("threads", marks=pytest.mark.prove), "processes"])
def test_points_side_by_side_measure_what_they_do_one_by_one(
    tmp_path: Path, runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    text = TINY.format(model=tiny.save(tmp_path / "model"))
    (tmp_path / "tiny.yaml").write_text(text)
    (tmp_path / "apart.yaml").write_text(
        text.replace("threads: 1", f"threads: 1, workers: 2, task_runner: {runner}")
    )
    apart = sweep(tmp_path, "rows=4,8", file="apart.yaml")
    with chain.forked_processes():
        side_by_side = apart.run()
    assert not side_by_side.failed
    made = [point.made for point in side_by_side.points]
    assert all("train" in steps and "dump" not in steps for steps in made)
    alone = sweep(tmp_path, "rows=4,8", file="tiny.yaml").run()
    assert [point.made for point in alone.points] == [(), ()]  # the same keys, hits all
    assert json.dumps(alone.settings()) == json.dumps(side_by_side.settings())
