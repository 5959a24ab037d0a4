"""The page about control: its files are valid, its commands and Python run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from ask_calls import make_root
from command_line import Called
from scripted_endpoint import ScriptedEndpoint

from activation_store.target.config import CompleteConfig
from core.records.steering_control import SteeringControl, find_control
from evaluators.control.config import ControlSection, Method
from generators.llm.testing import is_probe, plausible_reply
from generators.rules.obedience import adherence
from trainers.config import TrainConfig

PAGE = (Path(__file__).parents[3] / "docs" / "control.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("docs"))


def test_the_files_on_the_page_are_valid() -> None:
    control, of_replies, section = (yaml.safe_load(block) for block in blocks("yaml"))
    CompleteConfig.model_validate(of_replies["complete"])
    TrainConfig.model_validate(of_replies["train"])
    made = SteeringControl.model_validate(control)
    assert made.check is not None
    adherence("calm", made.check)
    ControlSection.model_validate(section["control"])


def test_every_way_is_described() -> None:
    assert all(f"`{name}`" in PAGE for name in get_args(Method))


def test_the_commands_on_the_page_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block, _ = blocks("console")
    for line in block.splitlines():
        words = shlex.split(line.removeprefix("$ latentqa "))
        called = Called(capsys, *words, "--root", str(root), "--max-tokens", "3", "--device", "cpu")
        assert called.code == 0, (line, called.err)


def reply(body: Mapping[str, Any]) -> Any:
    """Reply with a control that keeps to the rules."""
    if is_probe(body):
        return plausible_reply(body)
    questions = [
        {"question": f"What does it {verb}?", "answer": f"It {verb}s parrots.", "instead": other}
        for verb in ("love", "keep", "feed")
        for other in [[f"It {verb}s cats.", f"It {verb}s nothing."]]
    ]
    texts = {"description": "It is a pirate captain who loves parrots.", "prompt": "Be a pirate."}
    return {**texts, "questions": questions, "words": ["parrots"]}


def test_the_command_that_writes_a_control_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, block = blocks("console")
    words = shlex.split(block.strip().removeprefix("$ latentqa "))
    with ScriptedEndpoint(reply) as endpoint:
        section = {"endpoint": {"model": "scripted", "base_url": endpoint.base_url}}
        Path("mine.yaml").write_text(yaml.safe_dump({"experiment": "mine", "generate": section}))
        called = Called(capsys, *words, "--root", str(tmp_path / "root"))
        assert called.code == 0, called.err
        again = Called(capsys, *words, "--root", str(tmp_path / "root"))
        other = [word.replace("pirate.yaml", "other.yaml") for word in words]
        cached = Called(capsys, *other, "--root", str(tmp_path / "root"), "--json").json()
    assert find_control("pirate.yaml").control == "a-pirate-captain-who-loves-parrots"
    assert "pirate.yaml already exists" in again.refused()
    assert (cached["requests"], cached["cached_requests"]) == (0, 1)


def test_the_python_on_the_page_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(root))
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(code, "control.py", "exec"), names)
