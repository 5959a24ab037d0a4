"""The command line: exit codes, one line an error, one JSON document, no needless import."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Called
from fake_steps import use_fake_steps

from core.errors import DamagedError
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

TESTS = Path(__file__).parents[1]
BEGIN = "`latentqa init` writes one to begin with; --list has the packaged ones."


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with an experiment `fake` that has run, and the working directory."""
    monkeypatch.chdir(tmp_path)
    use_fake_steps(tmp_path, monkeypatch)
    from pipelines.running.request import RunRequest

    RunRequest(config="fake.yaml", root="artifacts").run()
    return tmp_path


def test_an_all_hit_run_prints_one_document(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = Called(capsys, "run", "fake.yaml", "--json")
    assert called.code == 0
    assert [step["cached"] for step in called.json()["steps"]] == [True] * 5
    assert called.err.count(" hit ") == 6


def test_an_all_hit_run_ends_with_what_was_learned(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Next:" in Called(capsys, "run", "fake.yaml").out


def test_an_all_hit_run_loads_nothing_heavy(place: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from command_line import Called
from fake_steps import FakeSteps
import pipelines.running.runner
pipelines.running.runner.steps_for = lambda experiment: FakeSteps(Path("log"), pieces=1).table()
from latentqa.cli import main
try:
    main(["run", "fake.yaml", "--json"])
finally:
    heavy = {{"torch", "transformers", "prefect", "datasets", "matplotlib"}}
    print("HEAVY", sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [step["cached"] for step in json.loads(done.stdout)["steps"]] == [True] * 5
    assert done.stderr.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "nope.yaml"], f"nope.yaml: no such experiment file. {BEGIN}"),
        (["run", "."], ".: cannot be read: is a directory. Name a text file."),
        (
            ["gc", "--keep-weekly", "2"],
            "gc: got --keep-weekly without --keep-last; expected both, or neither.",
        ),
        (
            ["sweep", "fake.yaml", "--vary", "rnk=1,2"],
            "--vary rnk=1,2: unknown axis rnk, expected one of rows, questions, rank, read_layer, "
            "mixture, epochs, model, or the full path of a field. Did you mean rank?",
        ),
        (
            ["run", "fake.yaml", "--set", "train.lora.rnak=1"],
            "--set train.lora.rnak=1: unknown field train.lora.rnak; did you mean train.lora.rank?",
        ),
        (
            ["run", "fake.yaml", "--until", "dmup"],
            "Invalid value for '--until': 'dmup' is not one of 'conversations', 'questions', "
            "'complete', 'quality', 'dump', 'train', 'train_prior', 'train_visible_text', "
            "'train_text', 'evaluate', 'judge', 'robustness', 'tasks', 'judge_tasks', 'control', "
            "'judge_control'. (latentqa run --help)",
        ),
        (
            ["run", "fake.yaml", "--until", "judge"],
            "--until judge: no such step; expected one of conversations, questions, dump, train, "
            "evaluate.",
        ),
        (
            ["run", "fake.yaml", "--root", "fake.yaml"],
            "fake.yaml: is not a folder; expected a folder for artifacts (--root).",
        ),
        (["nope"], "No such command 'nope'. (latentqa --help)"),
        (["run"], "Missing argument 'CONFIG'. (latentqa run --help)"),
        (["ls", "--nope"], "No such option: --nope (latentqa ls --help)"),
    ],
)
def test_a_users_error_is_one_line_and_exit_2(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    called = Called(capsys, *words)
    assert (called.code, called.out) == (2, "")
    assert called.err == f"latentqa: {line}\n".replace("{place}", str(place))


def test_any_other_error_is_one_line_and_exit_1(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("pipelines.artifacts.root.ArtifactRoot.artifacts", fail)
    called = Called(capsys, "ls")
    assert called.code == 1
    assert called.err == "latentqa: RuntimeError: two lines (--traceback shows the rest)\n"


def test_traceback_shows_the_rest(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, "run", "nope.yaml", "--traceback")
    assert called.code == 2
    assert "Traceback (most recent call last)" in called.err
    assert called.err.endswith(f"latentqa: nope.yaml: no such experiment file. {BEGIN}\n")


def test_ctrl_c_is_exit_130(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.artifacts.root.ArtifactRoot.artifacts", stop)
    called = Called(capsys, "ls")
    assert called.code == 130
    assert called.err == "Stopped. Finished work is kept; run again to go on.\n"


def test_ls_lists_artifacts_with_their_names(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = Called(capsys, "ls", "--json")
    assert {a["kind"] for a in called.json()["artifacts"]} >= {"dump", "train", "report"}
    assert {tuple(a["names"]) for a in called.json()["artifacts"]} == {("fake:1", "fake:latest")}
    assert Called(capsys, "ls").out.count("fake:latest") == 6


def test_ls_of_nothing_says_what_to_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, "ls", "--root", "empty")
    assert called.out == f"{place}/empty: no artifacts yet. `latentqa run CONFIG` makes some.\n"


def test_the_root_may_come_from_the_environment(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(place / "elsewhere"))
    assert Called(capsys, "ls", "--json").json()["root"] == str(place / "elsewhere")


def test_show_has_identity_and_record(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = Called(capsys, "show", "fake:1", "--json").json()[2:3]
    assert found["identity"]["config"] == {"layers": [0.5]}
    assert found["record"]["counts"]["sequences"] == 5


def test_diff_compares_two_runs_step_by_step(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.running.request import RunRequest

    RunRequest(config="fake.yaml", root="artifacts", overrides=["evaluate.answers=1"]).run()
    found = Called(capsys, "diff", "fake:1", "fake:2", "--json").json()
    assert found["train"] == []
    assert {"field": "config.answers", "left": 3, "right": 1} in found["evaluate"]
    assert "  config.answers: 3 → 1\n" in Called(capsys, "diff", "fake:1", "fake:2").out


def test_a_wrong_name_gets_the_one_that_was_meant(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ("fakke", "fake.yaml", "./fake.yaml"):
        assert "(did you mean fake?)" in Called(capsys, "show", wrong).refused()
    assert "(names here: fake)" in Called(capsys, "show", "other").refused()
    elsewhere = Called(capsys, "show", "fake", "--root", "nowhere").refused()
    assert "(no run has made this folder its root; check --root)" in elsewhere


@pytest.mark.parametrize("command", [("compare", "fake", "fake:1"), ("sweep", "fake.yaml")])
def test_a_file_is_no_folder_for_results(
    command: tuple[str, ...], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Called(capsys, *command, "--out", "fake.yaml").refused()
    assert f"{command[0]}: --out fake.yaml is a file, expected a folder" in refused


def test_tag_then_untag(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Called(capsys, "tag", "fake:1", "paper").out.startswith("paper:latest → conversations/")
    named = Called(capsys, "tag", "fake:1", "paper", "--json").json()
    assert (named["name"], len(named["artifacts"])) == ("paper:latest", 6)
    assert Called(capsys, "untag", "paper", "--json").json() == named
    assert Called(capsys, "show", "paper").code == 2


def test_gc_lists_then_removes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fake:1", "fake:latest"):
        Called(capsys, "untag", name)
    assert len(Called(capsys, "gc", "--json").json()["garbage"]) == 6
    assert "To remove 6 artifacts without a name (" in Called(capsys, "gc").out
    assert Called(capsys, "gc").out.endswith("):  latentqa gc --delete\n")
    assert Called(capsys, "gc", "--delete").out.splitlines()[-1].startswith("Removed 6 artifacts")
    assert Called(capsys, "gc").out.startswith("Nothing to remove: ")


def test_gc_says_the_whole_command_that_removes_what_it_lists(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.running.request import RunRequest

    RunRequest(config="fake.yaml", root="artifacts", overrides=["evaluate.answers=1"]).run()
    folder = Path("else where")
    Path("artifacts").rename(folder)
    old = Refs(ArtifactRoot(folder)).resolve("fake:1", "report").path
    (old / "record.json").unlink()
    old.rename(old.with_name(f"{old.name}.partial"))
    root = ("--root", str(folder))
    assert "1 unfinished artifact kept" in Called(capsys, "gc", *root).out
    options = ("--keep-last", "1", "--partials")
    listed = Called(capsys, "gc", *options, *root).out.splitlines()
    assert listed[0].split() == ["fake:1", "name"]
    found, _, again = listed[-1].partition(":  ")
    assert found.startswith("To remove 1 name and 2 artifacts without a name (")
    assert again == "latentqa gc --keep-last 1 --partials --root 'else where' --delete"
    removed = Called(capsys, *shlex.split(again)[1:]).out.splitlines()
    assert removed == [*listed[:-1], found.replace("To remove", "Removed") + "."]


def test_verify_reads_every_byte(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Called(capsys, "verify").code == 0
    (piece,) = place.glob("artifacts/dump/*/data/piece-0")
    piece.write_bytes(piece.read_bytes()[:-1] + b"x")
    called = Called(capsys, "verify", "fake")
    assert called.code == DamagedError.exit_code == 1
    assert "damaged: piece-0" in called.out
    assert "1 of its files differ from the record" in called.err


@pytest.mark.parametrize("name", ["record.json", "identity.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff"])
def test_verify_names_what_says_what_an_artifact_is(
    name: str, content: bytes, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = place.glob(f"artifacts/train/*/{name}")
    path.write_bytes(content)
    called = Called(capsys, "verify")
    assert called.code == 1
    assert f"damaged: {name}" in called.out
    assert f"train/{path.parent.name}: 1 of its files" in called.err


def test_a_place_that_cannot_be_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Called(capsys, "run", "fake.yaml", "--root", "a" * 300).refused()
    assert "File name too long" in line


def test_plan_prints_why(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, "plan", "fake.yaml", "--set", "dump.layers=[3]")
    assert "config.layers: [0.5] → [3]" in called.out
    assert "waits for dump." in called.out
    steps = Called(capsys, "plan", "fake.yaml", "--json").json()["steps"]
    assert {step["status"] for step in steps} == {"hit"}


def test_status_prints_states(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = Called(capsys, "status", "fake.yaml", "--json").json()["steps"]
    assert {step["state"] for step in steps} == {"complete"}
    assert Called(capsys, "status", "fake.yaml").out.count("complete") == 6


def test_no_words_are_help(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys)
    assert called.code == 0
    assert "Usage: latentqa" in called.out


def test_show_summarises_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Called(capsys, "show", "fake").out
    assert out.startswith("fake: a run of 6 steps, ")
    for part in (
        "  dump           sequences 5, tokens 50",
        "  verdict        ",
        "report.html\n",
        "  step   ",
    ):
        assert part in out
    assert "{" not in out


def test_show_summarises_an_artifact(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = Called(capsys, "show", "fake", "--json").json()[3]["key"]
    out = Called(capsys, "show", f"train/{key[:8]}").out
    assert out.startswith(f"train/{key[:16]}: a trained decoder\n")
    for part in ("made from", "settings       rank 16", "names          fake:1, fake:latest"):
        assert part in out
