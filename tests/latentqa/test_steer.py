"""`latentqa steer`: replies side by side, vectors and adapters kept, bad input refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from ask_calls import Called
from peft import LoraConfig, get_peft_model

from core.records.steering_control import find_control
from core.text.terminal import terminal_text
from decoder.steering.vectors import SteeringVector

WORDS = ("toy", "--prompt", "Hello!", "--max-tokens", "4", "--device", "cpu")


def steer(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> Called:
    return Called(capsys, root, *WORDS, *words, command="steer")


def test_both_replies_are_printed(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    called = steer(capsys, root, "--control", "cheerful", "--strength", "20")
    assert called.code == 0
    lines = called.out.splitlines()
    assert [line.split(":")[0] for line in lines if ": " in line][:2] == ["unsteered", "steered"]


def test_streamed_replies_are_those_of_json(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    document = json.loads(steer(capsys, root, "--control", "cheerful", "--json").out)
    (found,) = document["replies"]
    streamed = steer(capsys, root, "--control", "cheerful").out
    for side in ("unsteered", "steered"):
        assert terminal_text(found[side]) in streamed
    assert document["controls"][0]["control"] == "cheerful"


def test_settings_of_the_section_control_count(
    capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    own = ("--control", "cheerful", "--strength", "40", "--json")
    plain = json.loads(steer(capsys, root, *own).out)["replies"]
    still = json.loads(
        steer(capsys, root, *own, "--set", "control.activations.norm_limit=1e-9").out
    )["replies"]
    assert plain[0]["steered"] != plain[0]["unsteered"]
    assert still[0]["steered"] == still[0]["unsteered"]


def test_weighted_controls_go_together(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    called = steer(capsys, root, "--control", "cheerful", "--control", "formal=-0.5", "--json")
    assert called.code == 0
    assert len(json.loads(called.out)["controls"]) == 2


def test_a_control_is_read_off_a_prompt(
    capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "read.yaml"
    words = ("--from-prompt", "You are a pirate.", "--question", "Who is it?")
    called = steer(capsys, root, *words, "--save-control", str(path), "--json")
    assert called.code == 0, called.err
    control = find_control(str(path))
    assert control.description == "You are a pirate."
    assert [wanted.question for wanted in control.questions] == ["Who is it?"]
    assert steer(capsys, root, "--control", str(path), "--json").code == 0


def test_a_vector_is_kept_and_applied(
    capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    path = str(tmp_path / "cheer.safetensors")
    made = steer(capsys, root, "--control", "cheerful", "--by", "vector", "--out", path, "--json")
    used = steer(capsys, root, "--using", path, "--json")
    assert json.loads(used.out)["replies"] == json.loads(made.out)["replies"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "got 0 of --control"),
        (("--control", "cheerful", "--prompt", " "), "a prompt is empty"),
        (("--control", "cheerful", "--from-prompt", "x"), "got 2 of --control"),
        (("--control", "nobody"), "not found, expected a file or one of"),
        (("--control", "cheerful=much"), "expected a number other than 0"),
        (("--control", "cheerful", "--strength", "0"), "expected a number above 0"),
        (("--control", "cheerful", "--out", "v"), "nothing to save"),
        (
            ("--control", "cheerful", "--control", "formal", "--by", "vector"),
            "expected one control with weight 1",
        ),
        (("--control", "cheerful", "--strength", "nan"), "expected a number above 0"),
        (("--control", "cheerful", "--strength", "-1"), "expected a number above 0"),
        (("--control", "cheerful=0"), "expected a number other than 0"),
        (("--control", "cheerful=nan"), "expected a number other than 0"),
        (("--control", "cheerful=-1", "--by", "vector"), "expected one control with weight 1"),
        (("--control", "cheerful", "--question", "Who?"), "got --question without --from-prompt"),
        (("--control", "."), "cannot be read"),
        (("--using", "nothing.safetensors"), "no such file"),
        (("--using", "x", "--by", "vector"), "got --using together with --by, --out or --set"),
        (("--using", "x", "--strength", "0"), "expected a number above 0"),
        (("--using", "."), "not a peft adapter"),
        (("--using", "x", "--set", "control.seed=1"), "got --using together with --by"),
        (
            ("--control", "cheerful", "--set", "control.activations.steps=0"),
            "control.activations.steps: got 0, expected a whole number",
        ),
        (("--control", "cheerful", "--set", "train.seed=1"), "expected a field of control"),
        (
            ("--control", "cheerful", "--save-control", "c.yaml"),
            "got --save-control without --from-prompt",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    called = steer(capsys, root, *words)
    assert called.code == 2
    assert said in called.err
    assert len(called.err.strip().splitlines()) == 1


def save_vector(path: Path, layers: dict[int, torch.Tensor], **target: str) -> Path:
    SteeringVector(layers=layers, method="test", target=target).save(path)
    return path


@pytest.mark.parametrize(
    ("layers", "target", "said"),
    [
        ({2: torch.ones(32)}, {"weights": "another"}, "Make it again for this target"),
        ({2: torch.ones(7)}, {}, "d_model 7, the target has 32"),
        ({99: torch.ones(32)}, {}, "the vector's layer"),
        ({2: torch.full((32,), float("nan"))}, {}, "not finite"),
    ],
)
def test_a_vector_of_another_target_is_refused(
    layers: dict[int, torch.Tensor],
    target: dict[str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    root: Path,
    tmp_path: Path,
) -> None:
    path = save_vector(tmp_path / "v.safetensors", layers, **target)
    called = steer(capsys, root, "--using", str(path))
    assert (called.code, said in called.err) == (2, True), called.err
    assert len(called.err.strip().splitlines()) == 1


def test_an_adapter_of_another_width_is_refused(
    capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    net = get_peft_model(tiny.model(hidden_size=16), LoraConfig(r=2, target_modules=["q_proj"]))
    net.save_pretrained(str(tmp_path / "a"))
    called = steer(capsys, root, "--using", str(tmp_path / "a"))
    assert called.code == 2
    assert "peft cannot load it into this target" in called.err
    assert len(called.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("control: [", "not valid YAML for a control"),
        ("control: Big Name\ndescription: x\nquestions: []", "control: String should match"),
        ("\x00", "not valid YAML for a control"),
    ],
)
def test_a_broken_control_is_one_line(
    text: str, said: str, capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    called = steer(capsys, root, "--control", str(tmp_path / "c.yaml"))
    assert (called.code, said in called.err) == (2, True), called.err
    assert len(called.err.strip().splitlines()) == 1
