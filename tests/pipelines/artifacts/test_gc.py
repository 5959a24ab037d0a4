"""gc takes what no name holds, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_steps import FakeSteps, runner

from core.errors import StorageError
from pipelines.artifacts.gc import collect, find_garbage
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot


@pytest.fixture
def steps(tmp_path: Path) -> FakeSteps:
    return FakeSteps(tmp_path / "log", pieces=1)


def kinds(root: ArtifactRoot, *, partials: bool = False) -> list[str]:
    return sorted(item.short.partition("/")[0] for item in find_garbage(root, partials=partials))


def test_a_named_run_is_held(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps).run()
    assert kinds(ArtifactRoot(tmp_path / "r")) == []


def test_what_was_made_without_a_name_can_go(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps, until="dump").run()
    assert kinds(ArtifactRoot(tmp_path / "r")) == ["conversations", "dump", "questions"]


def test_a_tag_holds_what_its_artifact_is_made_from(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps, until="dump").run()
    root = ArtifactRoot(tmp_path / "r")
    Refs(root).tag(root.artifacts("dump")[0].short, "keep")
    assert kinds(root) == ["questions"]


def test_a_forgotten_version_can_go_but_not_what_others_share(
    tmp_path: Path, steps: FakeSteps
) -> None:
    runner(tmp_path / "r", steps).run()
    runner(tmp_path / "r", steps, dump={"layers": [3]}).run()
    root = ArtifactRoot(tmp_path / "r")
    Refs(root).untag("fake:1")
    assert kinds(root) == ["dump", "evaluate", "report", "train"]


def test_looking_removes_nothing(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps, until="dump").run()
    root = ArtifactRoot(tmp_path / "r")
    find_garbage(root)
    assert len(root.artifacts()) == 3


def test_collected_is_gone_and_the_rest_still_a_hit(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps, until="dump", dump={"layers": [3]}).run()
    runner(tmp_path / "r", steps).run()
    root = ArtifactRoot(tmp_path / "r")
    collect(root, find_garbage(root))
    assert len(root.artifacts("dump")) == 1
    assert runner(tmp_path / "r", steps).cached() is not None


def test_what_an_unfinished_step_is_made_from_is_held(tmp_path: Path) -> None:
    def fail(step: str, piece: int) -> None:
        if step == "dump":
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        runner(tmp_path / "r", FakeSteps(tmp_path / "log", before_piece=fail)).run()
    root = ArtifactRoot(tmp_path / "r")
    assert kinds(root) == ["questions"]
    assert kinds(root, partials=True) == ["conversations", "dump", "questions"]


def test_a_run_under_way_keeps_gc_away(tmp_path: Path, steps: FakeSteps) -> None:
    runner(tmp_path / "r", steps, until="dump").run()
    root = ArtifactRoot(tmp_path / "r")
    busy = runner(tmp_path / "r", steps)
    with busy.open(), pytest.raises(StorageError, match="a run is under way here"):
        collect(root, find_garbage(root))
