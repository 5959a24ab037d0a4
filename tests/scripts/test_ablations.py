"""scripts/ablations.py: its settings are experiments, and its table goes into the page."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from evaluators.comparison.values import ComparedValue
from evaluators.stats.estimates import Estimate

CHECKOUT = Path(__file__).parents[2]
WORDS = argparse.Namespace(
    config=str(CHECKOUT / "experiments" / "latentqa_eval.yaml"),
    data="rows",
    rows=40,
    controls=6,
    views=["control", "system"],
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
    return {"reading": {"test": {view: {"information_gain": leaf}}}}


def test_a_view_with_its_control_visible_is_marked(script: ModuleType) -> None:
    line = script.gain_line("masking: off", metrics("system+visible"), script.VIEWS)
    assert line == ["masking: off", "–", "–", "–", "0.50\u00a0[0.25,\u00a00.75] (visible)"]
    assert (
        script.gain_line("base", metrics("control"), ["control"])[1]
        == "0.50\u00a0[0.25,\u00a00.75]"
    )


def test_a_setting_that_shares_no_view_with_the_base_has_no_difference_to_it(
    script: ModuleType,
) -> None:
    leaf = {"estimate": 2.0, "low": 1.5, "high": 2.5, "n": 6}
    base, off = (
        SimpleNamespace(
            metrics={
                "train": {"validation": 1.5},
                "reading": {"test": {view: {"answer_loss": {"right": leaf}}}},
            }
        )
        for view in ("system", "system+visible")
    )
    assert script.loss_line("base", base, base, ["system"]) == [
        "base",
        "1.50",
        "2.00\u00a0[1.50,\u00a02.50]",
    ]
    assert script.loss_line("off", off, base, ["system"]) == ["off", "1.50", "–"]
    assert script.loss_line("off", base, None, ["system"]) == ["off", "1.50", "–"]


def test_a_difference_with_an_interval_off_zero_is_bold(script: ModuleType) -> None:
    off, over = (
        ComparedValue(Estimate(), Estimate(estimate=-0.5, low=low, high=0.5 + low, n=6))
        for low in (-0.75, -0.25)
    )
    few = ComparedValue(Estimate(), Estimate(estimate=0.125, n=2))
    assert script.difference(off) == "**-0.50 [-0.75, -0.25]**"
    assert script.difference(over) == "-0.50 [-0.25, +0.25]"
    assert script.difference(few) == "+0.12"


def test_the_table_takes_the_place_of_the_last_one(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nBefore.\n")
    for text in ("first", "second"):
        script.write(page, text)
    assert page.read_text() == (
        "# Page\n\nBefore.\n\n## Ablations\n\n<!-- ablations -->\nsecond\n<!-- /ablations -->\n"
    )
