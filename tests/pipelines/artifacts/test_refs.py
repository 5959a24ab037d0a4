"""REFs resolve to artifacts, or say what they expected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fake_steps import FakeSteps, runner

from core.errors import DamagedError, DataError, RefError
from core.records.table_files import write_conversations
from evaluators.measure.result_files import LOSSES_FILE
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.data_tables import load_tables
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.run.results import read_results


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    runner(tmp_path / "r", FakeSteps(tmp_path / "log", pieces=1)).run()
    return Refs(ArtifactRoot(tmp_path / "r"))


def the(refs: Refs, kind: str) -> Artifact:
    return refs.root.artifacts(kind)[0]


def test_a_folder_is_a_ref(refs: Refs) -> None:
    assert refs.resolve(str(the(refs, "dump").path)) == the(refs, "dump")


def test_what_lies_in_an_artifact_is_a_ref_to_it(refs: Refs) -> None:
    assert refs.resolve(str(the(refs, "dump").data)) == the(refs, "dump")


def test_kind_and_prefix_are_a_ref(refs: Refs) -> None:
    assert refs.resolve(f"dump/{the(refs, 'dump').key[:5]}") == the(refs, "dump")


@pytest.mark.parametrize("ref", ["fake", "fake:latest", "fake:1"])
def test_an_experiment_is_a_ref_to_the_kind_that_is_wanted(refs: Refs, ref: str) -> None:
    assert refs.resolve(ref, "train") == the(refs, "train")


def test_an_experiment_is_a_ref_to_all_its_steps(refs: Refs) -> None:
    assert list(refs.resolve_set("fake")) == [
        "conversations",
        "questions",
        "dump",
        "train",
        "evaluate",
        "report",
    ]


def test_too_much_is_refused(refs: Refs) -> None:
    with pytest.raises(RefError, match="fake: names 6 artifacts"):
        refs.resolve("fake")


def test_an_ambiguous_prefix_is_refused(tmp_path: Path, refs: Refs) -> None:
    for layer in range(20):
        runner(
            tmp_path / "r", FakeSteps(tmp_path / "log", pieces=1), "dump", dump={"layers": [layer]}
        ).run()
    first = [a.key[0] for a in refs.root.artifacts("dump")]
    shared = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(RefError, match="more digits of the key"):
        refs.resolve(f"dump/{shared}")


def test_another_kind_is_refused(refs: Refs) -> None:
    short = the(refs, "dump").short
    with pytest.raises(RefError) as caught:
        refs.resolve(short, "train")
    assert str(caught.value) == (
        f"{short}: is {short}, expected an artifact of kind train. `latentqa ls` lists all."
    )


@pytest.mark.parametrize("ref", ["fkae", "dump/00000000", "locks/refs", "no/such/path"])
def test_nothing_is_refused_with_what_there_is(refs: Refs, ref: str) -> None:
    with pytest.raises(
        RefError, match=r"names nothing in .* \((names here: fake|did you mean fake\?)\)"
    ):
        refs.resolve(ref)


def test_a_version_that_is_gone_names_those_that_are_there(refs: Refs) -> None:
    with pytest.raises(RefError, match=r"versions of fake here: 1, latest"):
        refs.resolve_set("fake:7")


def test_a_folder_of_the_same_name_never_shadows_an_experiment(
    refs: Refs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(the(refs, "dump").path, tmp_path / "fake")
    monkeypatch.chdir(tmp_path)
    assert refs.resolve("fake", "train") == the(refs, "train")
    assert refs.resolve("./fake").path == Path("fake")


def test_a_folder_of_the_same_name_never_shadows_the_rows_of_an_experiment(
    refs: Refs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"fake: found no conversations\.parquet"):
        load_tables(refs.root.path, "fake")
    write_conversations(the(refs, "conversations").data / "conversations.parquet", [])
    monkeypatch.setattr(Artifact, "check_bytes", lambda self: None)  # the fake step writes none
    assert load_tables(refs.root.path, "fake").conversations == []


def test_what_a_command_opens_is_what_was_committed(refs: Refs) -> None:
    write_conversations(the(refs, "conversations").data / "conversations.parquet", [])
    with pytest.raises(
        DamagedError, match=r"differs from the record's digest\. Run the experiment again"
    ):
        load_tables(refs.root.path, "fake")
    losses = the(refs, "evaluate").data / LOSSES_FILE
    stat = losses.stat()
    losses.write_bytes(losses.read_bytes()[::-1])
    os.utime(losses, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DamagedError, match=r"losses\.parquet: its content differs from the record"):
        read_results(refs, "fake")


def test_a_run_names_what_it_holds_where_another_kind_is_wanted(tmp_path: Path) -> None:
    runner(tmp_path / "r", FakeSteps(tmp_path / "log", pieces=1), until="dump").run()
    with pytest.raises(RefError) as caught:
        Refs(ArtifactRoot(tmp_path / "r")).resolve("fake", "train")
    assert str(caught.value) == (
        "fake: has conversations, questions, dump, expected an artifact of kind train. "
        "Run the experiment up to that step."
    )


def test_no_run_moves_a_tag(refs: Refs, tmp_path: Path) -> None:
    refs.tag("fake", "paper")
    steps = FakeSteps(tmp_path / "log", pieces=1)
    with pytest.raises(RefError, match=r"paper: is a tag in .*, and a run does not move tags"):
        runner(tmp_path / "r", steps, experiment="paper").prepare()
    held = refs.get("paper")
    refs.publish("paper", [the(refs, "dump")])
    assert refs.get("paper") == held


def test_no_tag_takes_the_name_of_an_experiment(refs: Refs) -> None:
    with pytest.raises(RefError, match="fake: is the name of an experiment"):
        refs.tag(the(refs, "dump").short, "fake")
    assert str(refs.tag(the(refs, "dump").short, "fake:best")) == "fake:best"


@pytest.mark.parametrize(("version", "text"), [("latest", "{"), ("1", "{"), ("1", "[" * 100_000)])
def test_a_broken_name_file_ends_no_run(
    refs: Refs, tmp_path: Path, version: str, text: str
) -> None:
    (refs.folder / "fake" / f"{version}.json").write_text(text)
    assert refs.broken_files() == [refs.folder / "fake" / f"{version}.json"]
    steps = FakeSteps(tmp_path / "log", pieces=1)
    made = runner(tmp_path / "r", steps, evaluate={"answers": 1}).run()
    assert str(made.name) == "fake:2"
    assert refs.resolve("fake", "evaluate") == made.steps[4].artifact


def test_a_broken_name_file_is_named_where_it_is_asked_for(refs: Refs) -> None:
    (refs.folder / "fake" / "latest.json").write_text("{")
    with pytest.raises(DamagedError, match=r"latest\.json: not a name file"):
        refs.resolve("fake", "train")


def test_files_of_operating_systems_are_no_names(refs: Refs) -> None:
    (refs.folder / "fake" / "._latest.json").write_bytes(b"\0\5")
    assert {str(name) for name in refs.names()} == {"fake:1", "fake:latest"}
    assert refs.broken_files() == []


def test_a_tag_names_what_a_ref_stands_for(refs: Refs) -> None:
    refs.tag("fake:1", "paper:final")
    assert refs.resolve("paper:final", "train") == the(refs, "train")


def test_a_tag_of_one_artifact_is_a_ref_to_it(refs: Refs) -> None:
    refs.tag(the(refs, "train").short, "best")
    assert refs.resolve("best") == the(refs, "train")


@pytest.mark.parametrize("name", ["a/b", "", ".hidden", "a:b:c", "a b"])
def test_a_name_that_is_none_is_refused(refs: Refs, name: str) -> None:
    with pytest.raises(RefError, match="not a valid name"):
        refs.tag("fake", name)


def test_numbers_are_not_for_tags(refs: Refs) -> None:
    with pytest.raises(RefError, match="expected a word"):
        refs.tag("fake", "fake:7")


def test_a_forgotten_name_names_nothing(refs: Refs) -> None:
    refs.tag("fake", "paper")
    refs.untag("paper")
    with pytest.raises(RefError):
        refs.resolve("paper", "train")


def test_a_name_whose_artifact_is_gone_says_so(refs: Refs, tmp_path: Path) -> None:
    the(refs, "train").path.rename(tmp_path / "gone")
    with pytest.raises(RefError, match=r"its artifact train/\w+ is gone"):
        refs.resolve("fake", "train")


def test_going_back_to_an_earlier_version_makes_no_new_one(tmp_path: Path, refs: Refs) -> None:
    steps = FakeSteps(tmp_path / "log", pieces=1)
    second = runner(tmp_path / "r", steps, evaluate={"answers": 1}).run()
    back = runner(tmp_path / "r", steps).run()
    assert (str(second.name), str(back.name)) == ("fake:2", "fake:1")
    latest = refs.get("fake")
    assert latest is not None
    assert latest.number == 1
