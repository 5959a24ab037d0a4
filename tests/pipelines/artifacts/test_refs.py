"""REFs resolve to artifacts, or say what they expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_steps import FakeSteps, runner

from core.errors import RefError
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot


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
    with pytest.raises(RefError, match="add digits"):
        refs.resolve(f"dump/{shared}")


def test_another_kind_is_refused(refs: Refs) -> None:
    short = the(refs, "dump").short
    with pytest.raises(RefError) as caught:
        refs.resolve(short, "train")
    assert str(caught.value) == (
        f"{short}: is {short}; expected an artifact of kind train. "
        "`latentqa ls` shows what there is."
    )


@pytest.mark.parametrize("ref", ["fkae", "dump/00000000", "fake:9", "locks/refs", "no/such/path"])
def test_nothing_is_refused_with_what_there_is(refs: Refs, ref: str) -> None:
    with pytest.raises(RefError, match=r"names nothing in .* \(names here: fake\)"):
        refs.resolve(ref)


def test_a_tag_names_what_a_ref_stands_for(refs: Refs) -> None:
    refs.tag("fake:1", "paper:final")
    assert refs.resolve("paper:final", "train") == the(refs, "train")


def test_a_tag_of_one_artifact_is_a_ref_to_it(refs: Refs) -> None:
    refs.tag(the(refs, "train").short, "best")
    assert refs.resolve("best") == the(refs, "train")


@pytest.mark.parametrize("name", ["a/b", "", ".hidden", "a:b:c", "a b"])
def test_a_name_that_is_none_is_refused(refs: Refs, name: str) -> None:
    with pytest.raises(RefError, match="cannot be a name"):
        refs.tag("fake", name)


def test_numbers_are_not_for_tags(refs: Refs) -> None:
    with pytest.raises(RefError, match="choose a word"):
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
