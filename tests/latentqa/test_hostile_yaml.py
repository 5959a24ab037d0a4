"""Experiment files as accidents and attackers make them: a plan, or one clear line and exit 2."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from command_line import Called
from fake_steps import use_fake_steps
from mutations import check_yaml

MUTATIONS, BLOCK = 200, 50
SECRET = "sk-proj-4fQ9xK27"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an empty working directory, and steps that read nothing from outside."""
    monkeypatch.chdir(tmp_path)
    use_fake_steps(tmp_path, monkeypatch)


@pytest.mark.parametrize("block", range(MUTATIONS // BLOCK))
def test_a_mutated_file_is_planned_or_refused_in_a_line(block: int, tmp_path: Path) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        check_yaml(seed, tmp_path)


def write(text: str) -> None:
    Path("x.yaml").write_text(f"experiment: x\ndata: {{path: .}}\n{text}\n")


def test_a_file_without_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/dev/zero: larger than 4 MB" in Called(capsys, "plan", "/dev/zero").refused()


@pytest.mark.parametrize(
    "field",
    ["evaluate.bootstrap", "robustness.bootstrap", "tasks.bootstrap", "runtime.threads",
     "runtime.workers", "runtime.processes", "train.lora.rank", "evaluate.max_answer_tokens",
     "complete.max_tokens", "train.seed", "evaluate.seed", "robustness.seed", "tasks.seed"],
)  # fmt: skip
def test_a_number_beyond_what_a_library_takes_is_one_line(
    field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("robustness: {}\ntasks: {}\ncomplete: {}")
    line = Called(capsys, "plan", "x.yaml", "--set", f"{field}=1000000000000").refused()
    assert "should be less than" in line


@pytest.mark.parametrize("section", ["train", "evaluate", "robustness", "tasks", "complete"])
def test_a_seed_below_zero_is_one_line(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("robustness: {}\ntasks: {}\ncomplete: {}")
    line = Called(capsys, "plan", "x.yaml", "--set", f"{section}.seed=-1").refused()
    assert f"{section}.seed: got -1" in line


def test_a_name_that_no_file_can_have_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("x.yaml").write_text(f"experiment: {'x' * 300}\ndata: {{path: .}}\n")
    assert "experiment" in Called(capsys, "plan", "x.yaml").refused()


def test_aliases_that_multiply_are_refused_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))
    write(f"a0: &a0 [x, x]\n{levels}")
    began = time.monotonic()
    line = Called(capsys, "plan", "x.yaml").refused()
    assert time.monotonic() - began < 10
    assert "aliases" in line


@pytest.mark.parametrize("depth", [200, 2000])
def test_values_that_are_nested_too_deeply_are_told_as_that(
    depth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write(f"generate: {{endpoint: {{extra_body: {'{a: ' * depth}1{'}' * depth}}}}}")
    assert "nested too deeply" in Called(capsys, "plan", "x.yaml").refused()


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
        f"generate: {{endpoint: {{model: m, extra_body: {{api_key: {SECRET}}}}}}}",
        f"generate: {{endpoint: {{model: m, extra_body: {{user: {{x_secret: {SECRET}}}}}}}}}",
        f"generate: {{endpoint: {{model: m, extra_body: {{note: Bearer {SECRET}}}}}}}",
        f"generate: {{endpoint: {{model: m, extra_body: {SECRET}}}}}",
        f"generate: {{endpoint: {{model: m, extra_headers: {{Authorization: {SECRET}}}}}}}",
        f"generate: {{endpoint: {{model: m, extra_headers: {{'Authorization: {SECRET}': X}}}}}}",
        f"generate: {{endpoint: {{model: m, extra_headers: {{{SECRET}: MY_KEY}}}}}}",
        f"generate: {{endpoint: {{model: m, headers: {{Authorization: {SECRET}}}}}}}",
        f"generate: {{endpoint: {{model: m, base_url: 'me:{SECRET}@host/v1'}}}}",
        f"generate: {{endpoint: {{model: m, base_url: ['https://me:{SECRET}@host/v1']}}}}",
        f"generate: {{endpoint: 'https://me:{SECRET}@host/v1'}}",
        f"generate: {{endpoint: 'api_key_env:{SECRET}'}}",
        f"generate: {{endpoint: {{model: m, api_key_env:{SECRET}}}}}",
        f"generate: {{endpoint: {{model: m, timeout_s: {SECRET}}}}}",
        f"generate: {{endpoint: {{model: m, base_url: 'http://h/v1', prices: 'https://me:{SECRET}@h'}}}}",
        f"generate: {{endpoint: {{model: m, revision: {SECRET}}}}}",
        f"generate: {{endpoint: {{model: {SECRET}}}}}",
        f"data: {{path: ., label: {SECRET}}}",
        f"data: {{path: .}}\nsweep: {{vary: {{model: [{SECRET}, x]}}}}",
        f"data: {{path: .}}\ndump: {{model: 'https://me:{SECRET}@hub/model'}}",
    ],
)
def test_a_pasted_key_is_never_printed_back(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.yaml").write_text(f"experiment: x\n{line}\n")
    assert SECRET not in Called(capsys, "plan", "x.yaml").refused()
    assert SECRET not in Called(capsys, "plan", "x.yaml", "--traceback").err


@pytest.mark.parametrize(
    "override",
    [
        f"generate.endpoint.api_key_env={SECRET}",
        "generate.endpoint.api_key_env=hush7",
        f"generate.endpoint.api_key={SECRET}",
        f"generate.endpoint.extra_headers.x-team={SECRET}",
        "generate.endpoint.extra_headers.x-team=hush7",
        "generate.endpoint.extra_headers={x-team: hush7}",
        "generate.endpoint.headers.Authorization=hush7",
        "generate.endpoint.extra_body.token=hush777",
        "generate.endpoint.base_url=me:hush7@host/v1",
        "generate.endpoint.base_url=https://me:hush7@ho st/v1",
        "generate.endpoint={model: m, api_key: hush7}",
        f"generate.endpoint.revision={SECRET}",
        f"experiment={SECRET.lower()}",
        SECRET,
    ],
)
def test_a_key_pasted_on_the_command_line_is_never_printed_back(
    override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.yaml").write_text("experiment: x\ngenerate: {endpoint: {model: m}}\n")
    line = Called(capsys, "plan", "x.yaml", "--set", override).refused()
    told = Called(capsys, "plan", "x.yaml", "--set", override, "--traceback").err
    assert "Traceback" in told
    for text in (line, told):
        assert SECRET.lower() not in text.lower()
        assert "hush" not in text


def test_a_name_that_is_a_key_is_no_tag(capsys: pytest.CaptureFixture[str]) -> None:
    assert SECRET not in Called(capsys, "tag", "dump/0", SECRET, "--root", "r").refused()
