"""Each step's source code is known, and a change of it is a decision."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from pipelines.steps.order import every_step
from pipelines.steps.shared.step import Step
from pipelines.steps.source_digest import NEUTRAL, code_digest, source_digest, source_modules

DATA = Path(__file__).with_name("source_digests.json")
CODE = 'LIMIT = 3\n\n\ndef double(x):\n    """Return twice `x`."""\n    return 2 * x\n'


@pytest.mark.parametrize("step", every_step(), ids=lambda step: f"{step.name} by {step.entry}")
def test_a_change_of_source_code_was_decided_upon(step: Step) -> None:
    known = json.loads(DATA.read_text())[f"{step.name} by {step.entry}"]
    found = {"version": step.version, "digest": source_digest(step.entry)}
    assert found == known, (
        f"the source code of {step.name} has changed: raise its version in pipelines/steps "
        "if its output changes, then run scripts/record_source_digests.py (with --same-output if "
        "it does not)"
    )


@pytest.mark.parametrize(
    "prose",
    [
        CODE.replace("Return twice `x`.", "Double a number."),
        CODE.replace('    """Return twice `x`."""\n', ""),
        CODE.replace("LIMIT = 3\n", 'LIMIT = 3\n"""Most rows."""\n'),
        "# a comment\n" + CODE.replace("2 * x", "(2 *\n        x)"),
    ],
)
def test_prose_and_layout_are_no_code(prose: str) -> None:
    assert code_digest(ast.parse(prose)) == code_digest(ast.parse(CODE))


@pytest.mark.parametrize(
    "other", [CODE.replace("2 * x", "3 * x"), CODE.replace("3", "'3'"), CODE.replace("x", "y")]
)
def test_any_other_change_is(other: str) -> None:
    assert code_digest(ast.parse(other)) != code_digest(ast.parse(CODE))


def test_modules_follow_imports_inside_functions() -> None:
    assert "activation_store.target.load" in source_modules("activation_store.write.dump")


def test_modules_leave_out_what_cannot_change_an_output() -> None:
    assert not NEUTRAL & source_modules("generators.exchange.importing")


def test_modules_do_not_look_forward() -> None:
    packages = {name.split(".")[0] for name in source_modules("generators.exchange.importing")}
    assert packages == {"core", "generators"}


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"no module generators\.nothing"):
        source_modules("generators.nothing")
