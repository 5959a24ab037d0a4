"""Each step's source files are known, and a change of them is a decision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.steps.order import every_step
from pipelines.steps.source_digest import NEUTRAL, source_digest, source_files
from pipelines.steps.step import Step

DATA = Path(__file__).with_name("source_digests.json")


@pytest.mark.parametrize("step", every_step(), ids=lambda step: f"{step.name} by {step.entry}")
def test_a_change_of_source_files_was_decided_upon(step: Step) -> None:
    known = json.loads(DATA.read_text())[f"{step.name} by {step.entry}"]
    found = {"version": step.version, "digest": source_digest(step.entry)}
    assert found == known, (
        f"the source files of {step.name} have changed: raise its version in pipelines/steps "
        "if its output changes, then run scripts/record_source_digests.py (with --same-output if "
        "it does not)"
    )


def test_source_files_follow_imports_inside_functions() -> None:
    assert "activation_store.target.load" in source_files("activation_store.write.dump")


def test_source_files_leave_out_what_cannot_change_an_output() -> None:
    assert not NEUTRAL & source_files("generators.exchange.importing").keys()


def test_source_files_do_not_look_forward() -> None:
    rooms = {name.split(".")[0] for name in source_files("generators.exchange.importing")}
    assert rooms == {"generators"}


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"no module generators\.nothing"):
        source_files("generators.nothing")
