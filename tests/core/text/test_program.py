"""What a person types for `latentqa`: its path, where a shell would not find it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.text.wording import program


@pytest.mark.parametrize("on_path", [True, False])
def test_a_script_that_is_on_no_path_is_named_from_here(
    on_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / "latentqa"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(script.parent) if on_path else "")
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert program() == ("latentqa" if on_path else "bin/latentqa")


def test_any_other_program_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert program() == "latentqa"
