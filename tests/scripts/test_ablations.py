"""scripts/ablations.py: its settings are experiments over one store, its table the page's."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import chain
import pytest

from core.records.estimate import Estimate
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from evaluators.comparison.values import ComparedValue
from pipelines.artifacts.root import ArtifactRoot

CHECKOUT = Path(__file__).parents[2]
WORDS = argparse.Namespace(stimuli=8, epochs=1.5, set=["dump.model=embedded"])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "ablations", CHECKOUT / "scripts" / "ablations.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_is_an_experiment_of_its_own_over_one_dump(
    script: ModuleType, tmp_path: Path
) -> None:
    files = script.write_data(tmp_path, 8) | {script.OFF_POLICY: tmp_path / "off.jsonl"}
    found = {
        name: script.experiment(changes, files, WORDS) for name, changes in script.SETTINGS.items()
    }
    assert len({made.model_dump_json() for made in found.values()}) == len(found)
    assert len({made.dump.model_dump_json() for made in found.values()}) == 1
    assert {made.train.contrastive for made in found.values()} == {0.0, 0.5, 2.0}
    assert found["stimuli: a quarter, shared"].train.epochs == 6
    assert found["view stimulus_completion, another's replies"].complete is None


@pytest.mark.prove
def test_a_small_sweep_runs_goes_on_and_writes_its_table(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page, root = tmp_path / "page.md", tmp_path / "root"
    page.write_text("# Page\n")
    monkeypatch.setattr(script, "PAGE", page)
    names = ("base", "contrastive: 0.5", "view stimulus_completion, another's replies")
    monkeypatch.setattr(script, "SETTINGS", {name: script.SETTINGS[name] for name in names})
    tiny = {
        "dump.model": str(chain.model().folder),
        "dump.layers": "[1, 2]",
        "dump.store_dtype": "float32",
        "complete.max_tokens": "2",
        "train.decoder.read_layer": "2",
        "train.max_steps": "2",
        "train.evaluations": "1",
        "evaluate.bootstrap": "100",
        "runtime.device": "cpu",
    }
    given = [word for field, value in tiny.items() for word in ("--set", f"{field}={value}")]
    for only in (["base", "contrastive: 0.5"], ["view stimulus_completion, another"]):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "ablations",
                "--root",
                str(root),
                "--stimuli",
                "2",
                "--write",
                *given,
                "--only",
                *only,
            ],
        )
        script.main()
    shown = capsys.readouterr()
    assert shown.err.count("base ...") == 1  # found again the second time
    lines = [own for own in page.read_text().splitlines() if own.startswith("| ")]
    assert [own.split(" | ")[0] for own in lines[2:]] == [f"| {name}" for name in names]
    assert all(own.split(" | ")[1] == "6" for own in lines[2:])
    # the rotated replies are those of another control to the same stimulus
    rows = [
        row
        for folder in ArtifactRoot(root).artifacts("conversations")
        for row in read_conversations(folder.data / CONVERSATIONS_FILE)
        if row.view == "stimulus_completion"
    ]
    assert len({row.control_id for row in rows}) == 6
    assert {row.split for row in rows} == {"train", "validation", "test_seen"}


def test_a_difference_with_an_interval_off_zero_is_bold(script: ModuleType) -> None:
    off, over = (
        ComparedValue(Estimate(), Estimate(estimate=-0.5, low=low, high=0.5 + low, n=6))
        for low in (-0.75, -0.25)
    )
    few = ComparedValue(Estimate(), Estimate(estimate=0.125, n=2))
    assert script.difference(off) == "**-0.50 [-0.75, -0.25]**"
    assert script.difference(over) == "-0.50 [-0.25, +0.25]"
    assert script.difference(few) == "+0.12"
