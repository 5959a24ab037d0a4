"""Experiment files as accidents and attackers make them: a plan, or one clear line and exit 2."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from command_line import Called
from fake_steps import FakeSteps

import pipelines.running.runner
from core.terminal import terminal_text
from latentqa.commands.experiments.init import packaged_experiments

MUTATIONS, BLOCK = 500, 50
SECRET = "sk-proj-4fQ9xK27"
VALUES = (
    "1e400", "-1e400", ".nan", ".inf", "9" * 30, "9" * 5000, "0x10", "010", "1_000", "''", "[]",
    "{}", "~", "yes", "2026-01-01", "&a [*a]", "*nothing", "!x y",
    "!!python/object/apply:os.system [ls]", '"\\ud800"', '"\\x9b2J"', "\u202eabc", "[" * 2000,
    "{a: " * 300, "|", "- -", "a: b: c",
    "%YAML 9", "\t", "[/bold]", "'", '"', "@", "`", "? ", "\x00", "\x85", "\ufeff",
)  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an empty working directory, and steps that read nothing from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LATENTQA_ROOT", raising=False)
    steps = FakeSteps(tmp_path / "log", pieces=1)
    monkeypatch.setattr(pipelines.running.runner, "steps_for", lambda experiment: steps.table())


def mutate(text: str, rng: random.Random) -> str:
    """Change a file at one to three places, as editors, merges and attackers do."""
    for _ in range(rng.randint(1, 3)):
        lines = text.split("\n")
        i = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                lines.pop(i)
            case 1:
                lines.insert(i, lines[rng.randrange(len(lines))])
            case 2:
                lines[i] = " " * rng.randrange(5) + lines[i].lstrip()
            case 3:
                name = lines[i].partition(":")[0]
                lines[i] = f"{name}: {rng.choice(VALUES)}"
            case 4:
                at = rng.randrange(len(lines[i]) + 1)
                lines[i] = lines[i][:at] + rng.choice(VALUES) + lines[i][at:]
            case 5:
                at = rng.randrange(len(lines[i]) + 1)
                lines[i] = lines[i][:at] + lines[i][at + 1 :]
            case _:
                lines = lines[: i + 1]
        text = "\n".join(lines)
    return text


def check(called: Called, text: str) -> None:
    """Make a plan on stdout, or one line that a terminal can show."""
    assert called.code in (0, 2), (called.code, called.err, text)
    if called.code == 2:
        assert called.out == ""
        assert called.err.startswith("latentqa: ")
        assert called.err.count("\n") == 1, (called.err, text)
        assert "Traceback" not in called.err
        assert terminal_text(called.err) == called.err


@pytest.mark.parametrize("block", range(MUTATIONS // BLOCK))
def test_a_mutated_file_is_planned_or_refused_in_a_line(
    block: int, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = list(packaged_experiments().values())
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        rng = random.Random(seed)
        text = mutate(rng.choice(texts), rng)
        Path("x.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        check(Called(capsys, "plan", "x.yaml"), f"seed {seed}:\n{text}")


def write(text: str) -> None:
    Path("x.yaml").write_text(f"experiment: x\ndata: {{path: .}}\n{text}\n")


def test_aliases_that_multiply_are_refused_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))
    write(f"a0: &a0 [x, x]\n{levels}")
    began = time.monotonic()
    line = Called(capsys, "plan", "x.yaml").refused()
    assert time.monotonic() - began < 10
    assert "aliases" in line


@pytest.mark.parametrize("value", ["1e400", ".nan", "9" * 30, "9" * 5000, "-9223372036854775809"])
def test_a_number_beyond_the_machines_is_one_line(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(f"train: {{seed: {value}}}")
    assert "x.yaml" in Called(capsys, "plan", "x.yaml").refused()
    assert Called(capsys, "plan", "x.yaml", "--set", f"train.seed={value}").code == 2


@pytest.mark.parametrize(
    "line",
    [
        f"generate: {{endpoint: {{model: m, api_key_env: {SECRET}}}}}",
        f"generate: {{endpoint: {{model: m, api_key_env: [{SECRET}]}}}}",
        f"generate: {{endpoint: {{model: m, api_key: {SECRET}}}}}",
        f"generate: {{endpoint: {{model: m, api_key_env: {SECRET}, api_key_env: {SECRET}}}}}",
    ],
)
def test_a_pasted_key_is_never_printed_back(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.yaml").write_text(f"experiment: x\n{line}\n")
    assert SECRET not in Called(capsys, "plan", "x.yaml").refused()


@pytest.mark.parametrize("field", ["api_key_env", "api_key"])
def test_a_key_pasted_on_the_command_line_is_never_printed_back(
    field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.yaml").write_text("experiment: x\ngenerate: {endpoint: {model: m}}\n")
    words = ("--set", f"generate.endpoint.{field}={SECRET}")
    assert SECRET not in Called(capsys, "plan", "x.yaml", *words).refused()
