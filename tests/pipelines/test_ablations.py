"""scripts/ablations.py: its settings are experiments, and its table goes into the page."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
WORDS = argparse.Namespace(
    config=str(CHECKOUT / "experiments" / "latentqa_eval.yaml"), data="rows", rows=40, controls=6
)


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


def test_every_setting_is_an_experiment_of_its_own(script: ModuleType) -> None:
    found = {
        name: script.experiment(WORDS, changes) for name, changes in script.settings(40).items()
    }
    assert len({made.train.model_dump_json() for made in found.values()}) == len(found)
    assert {made.dump.model_dump_json() for made in found.values()} == {
        found["base"].dump.model_dump_json()
    }
    assert found["rows: double"].train.max_rows == 80


def metrics(view: str) -> dict[str, Any]:
    leaf = {"estimate": 0.5, "low": 0.25, "high": 0.75, "n": 6}
    found = {"answer_loss": {"right": leaf}, "below_untrained": leaf, "information_gain": leaf}
    train = {"validation": 2.0, "untrained_validation": 2.75}
    return {"train": train, "reading": {"test": {view: found}}}


def test_a_view_with_its_control_visible_is_marked(script: ModuleType) -> None:
    line = script.row("masking: off", metrics("system+visible"))
    assert line[0] == "masking: off"
    assert line[-1] == "0.50 [0.25, 0.75] (visible)"
    assert script.row("base", metrics("control"))[2] == "0.50 [0.25, 0.75]"


def test_the_table_takes_the_place_of_the_last_one(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nBefore.\n")
    for text in ("first", "second"):
        script.write(page, text)
    assert page.read_text() == (
        "# Page\n\nBefore.\n\n## Ablations\n\n<!-- ablations -->\nsecond\n<!-- /ablations -->\n"
    )
