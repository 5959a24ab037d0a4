"""Garbage collection removes what no name holds, and nothing that no run made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Called
from fake_steps import FakeSteps, runner

from core import files
from core.errors import ConfigError, DamagedError, StorageError
from generators.exchange.config import DataSection
from pipelines.artifacts.gc import collect_garbage, find_garbage
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot


def stopped_run(tmp_path: Path, steps: FakeSteps, until: str = "dump") -> ArtifactRoot:
    """Make a root with the artifacts of a run that stopped early and whose name is forgotten."""
    made = runner(tmp_path / "r", steps, until=until)
    with made.open():
        made.run()
    root = ArtifactRoot(tmp_path / "r")
    for name in Refs(root).names():
        Refs(root).untag(str(name))
    return root


@pytest.fixture
def steps(tmp_path: Path) -> FakeSteps:
    return FakeSteps(tmp_path / "log", pieces=1)


def kinds(root: ArtifactRoot, *, partials: bool = False) -> list[str]:
    return sorted(item.short.partition("/")[0] for item in find_garbage(root, partials=partials))


def test_a_named_run_is_held(tmp_path: Path, steps: FakeSteps) -> None:
    made = runner(tmp_path / "r", steps)
    with made.open():
        made.run()
    assert kinds(ArtifactRoot(tmp_path / "r")) == []


def test_a_run_that_stopped_early_is_held(tmp_path: Path, steps: FakeSteps) -> None:
    made = runner(tmp_path / "r", steps, until="dump")
    with made.open():
        made.run()
    assert kinds(ArtifactRoot(tmp_path / "r")) == []


def test_what_no_name_holds_can_go(tmp_path: Path, steps: FakeSteps) -> None:
    assert kinds(stopped_run(tmp_path, steps)) == ["conversations", "dump", "questions"]


def test_a_tag_holds_what_its_artifact_is_made_from(tmp_path: Path, steps: FakeSteps) -> None:
    root = stopped_run(tmp_path, steps)
    Refs(root).tag(root.artifacts("dump")[0].short, "keep")
    assert kinds(root) == ["questions"]


def test_a_forgotten_version_can_go_but_not_what_others_share(
    tmp_path: Path, steps: FakeSteps
) -> None:
    with runner(tmp_path / "r", steps).open():
        runner(tmp_path / "r", steps).run()
        runner(tmp_path / "r", steps, dump={"layers": [3]}).run()
    root = ArtifactRoot(tmp_path / "r")
    Refs(root).untag("fake:1")
    assert kinds(root) == ["dump", "evaluate", "report", "train"]


def test_looking_removes_nothing(tmp_path: Path, steps: FakeSteps) -> None:
    root = stopped_run(tmp_path, steps)
    find_garbage(root)
    assert len(root.artifacts()) == 3


def test_collected_is_gone_and_the_rest_still_a_hit(tmp_path: Path, steps: FakeSteps) -> None:
    root = stopped_run(tmp_path, steps)
    runner(tmp_path / "r", steps, dump={"layers": [3]}).run()
    collect_garbage(root)
    assert len(root.artifacts("dump")) == 1
    again = runner(tmp_path / "r", steps, dump={"layers": [3]}).run()
    assert all(run.cached for run in again.steps)


def test_what_an_unfinished_step_is_made_from_is_held(tmp_path: Path) -> None:
    def fail(step: str, piece: int) -> None:
        if step == "dump":
            raise ValueError

    made = runner(tmp_path / "r", FakeSteps(tmp_path / "log", before_piece=fail))
    with made.open(), pytest.raises(ValueError, match=r"^$"):
        made.run()
    root = ArtifactRoot(tmp_path / "r")
    assert kinds(root) == ["questions"]
    assert kinds(root, partials=True) == ["conversations", "dump", "questions"]


def test_a_run_under_way_keeps_gc_away(tmp_path: Path, steps: FakeSteps) -> None:
    root = stopped_run(tmp_path, steps)
    busy = runner(tmp_path / "r", steps)
    with busy.open(), pytest.raises(StorageError, match="a run is in progress here"):
        collect_garbage(root)


@pytest.mark.parametrize(
    "words",
    [
        ("publish", "train/0", "--out", "out"),
        ("data", "export", "dump/0", "--format", "parquet", "--out", "out"),
        ("tag", "dump/0", "keep"),
        ("ask", "train/0", "--prompt", "Hi", "--question", "Who?"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_a_command_that_reads_artifacts_keeps_gc_away(
    words: tuple[str, ...],
    tmp_path: Path,
    steps: FakeSteps,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = stopped_run(tmp_path, steps)
    refused: list[str] = []

    def look_up(refs: Refs, *args: Any, **settings: Any) -> Any:
        with pytest.raises(StorageError, match="another command reads artifacts") as caught:
            collect_garbage(refs.root)
        refused.append(str(caught.value))
        raise ConfigError("enough")

    for name in ("resolve", "resolve_set", "tag"):
        monkeypatch.setattr(Refs, name, look_up)
    monkeypatch.chdir(tmp_path)
    assert "enough" in Called(capsys, *words, "--root", str(root.path)).refused()
    assert len(refused) == 1
    assert len(collect_garbage(root)) == 3


@pytest.mark.parametrize("joined", [False, True])
def test_a_path_into_another_root_keeps_gc_away_there(
    joined: bool,
    tmp_path: Path,
    steps: FakeSteps,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = stopped_run(tmp_path, steps)
    place = str(root.artifacts("dump")[0].path)

    def look_up(refs: Refs, *args: Any, **settings: Any) -> Any:
        with pytest.raises(StorageError, match="another command reads artifacts"):
            collect_garbage(root)
        raise ConfigError("enough")

    monkeypatch.setattr(Refs, "resolve_set", look_up)
    monkeypatch.chdir(tmp_path)
    words = ("compare", f"{place}+x", "y") if joined else ("show", place)
    assert "enough" in Called(capsys, *words, "--root", "here").refused()
    assert len(collect_garbage(root)) == 3


def test_a_run_that_names_files_in_another_root_keeps_gc_away_there(
    tmp_path: Path, steps: FakeSteps
) -> None:
    root = stopped_run(tmp_path, steps)
    busy = runner(tmp_path / "elsewhere", steps)
    data = DataSection(path=str(root.artifacts("conversations")[0].data))
    busy.experiment = busy.experiment.with_changes(data=data)
    with busy.open(), pytest.raises(StorageError, match="another command reads artifacts"):
        collect_garbage(root)
    assert len(collect_garbage(root)) == 3


def test_a_command_locks_no_folder_that_is_no_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Called(capsys, "ls", "--root", str(tmp_path)).code == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_publishes_before_gc_has_the_lock_is_kept(
    tmp_path: Path, steps: FakeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = stopped_run(tmp_path, steps)

    @contextlib.contextmanager
    def late(path: Path) -> Iterator[bool]:
        runner(tmp_path / "r", steps).run()  # which finishes just before
        yield True

    monkeypatch.setattr("pipelines.artifacts.gc.exclusive_or_none", late)
    assert collect_garbage(root) == []
    assert all(run.cached for run in runner(tmp_path / "r", steps).run().steps)


def test_a_folder_that_is_no_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home" / "dump" / "0123456789abcdef.partial").mkdir(parents=True)
    for find in (find_garbage, collect_garbage):
        with pytest.raises(StorageError, match="is not an artifact root"):
            find(ArtifactRoot(tmp_path / "home"), partials=True)
    assert sorted(p.name for p in (tmp_path / "home").iterdir()) == ["dump"]


def test_folders_of_other_people_stay(tmp_path: Path, steps: FakeSteps) -> None:
    root = stopped_run(tmp_path, steps)
    strangers = [
        root.path / "export" / "quickstart",
        root.path / "published" / "decoder",
        root.path / "imported" / "rows",
        root.path / "dump" / "my notes.partial",
        root.path / "dump" / "0123456789abcdef.partial",
        root.path / "dump" / "0123456789abcdee.partial" / "data",
        root.path / "notes" / ".old.removed",
        root.path / ".d.json.q.tmp",
        root.path / "dump" / "fedcba9876543210",
    ]
    for folder in strangers:
        folder.mkdir(parents=True)
        (folder / "precious.txt").write_text("mine")
    record = root.artifacts("dump")[0].path / "record.json"
    shutil.copy(record, strangers[-1])  # with a record, and not by its own name
    collect_garbage(root, partials=True)
    assert [folder.is_dir() for folder in strangers] == [True] * len(strangers)
    assert kinds(root, partials=True) == []


def test_folders_behind_links_stay(tmp_path: Path, steps: FakeSteps) -> None:
    root = stopped_run(tmp_path, steps)
    dump = root.artifacts("dump")[0].path
    os.rename(dump, tmp_path / "elsewhere")
    dump.symlink_to(tmp_path / "elsewhere")
    os.rename(root.path / "questions", tmp_path / "kind")
    (root.path / "questions").symlink_to(tmp_path / "kind")
    collect_garbage(root, partials=True)
    assert len(list((tmp_path / "elsewhere" / "data").iterdir())) == 1
    assert len(list((tmp_path / "kind").iterdir())) == 1


def test_what_looks_like_a_removal_behind_a_link_stays(tmp_path: Path, steps: FakeSteps) -> None:
    root = stopped_run(tmp_path, steps)
    aside = tmp_path / "elsewhere" / ".0123456789abcdef.removed"
    aside.mkdir(parents=True)
    (root.path / "linked").symlink_to(tmp_path / "elsewhere")
    (root.path / "dump" / ".fedcba9876543210.removed").symlink_to(aside)
    collect_garbage(root)
    assert aside.is_dir()


@pytest.mark.parametrize("name", ["latest", "1"])
def test_nothing_is_removed_while_a_name_cannot_be_read(
    tmp_path: Path, steps: FakeSteps, name: str
) -> None:
    with runner(tmp_path / "r", steps).open():
        runner(tmp_path / "r", steps).run()
    root = ArtifactRoot(tmp_path / "r")
    (root.path / "refs" / "fake" / f"{name}.json").write_text("{")
    before = len(root.artifacts())
    with pytest.raises(
        DamagedError, match=r"so it is unknown which artifacts it names, and nothing is removed"
    ):
        collect_garbage(root)
    assert len(root.artifacts()) == before


def test_nothing_is_removed_while_a_held_record_cannot_be_read(
    tmp_path: Path, steps: FakeSteps
) -> None:
    root = stopped_run(tmp_path, steps)
    dump = root.artifacts("dump")[0]
    Refs(root).tag(dump.short, "keep")
    (dump.path / "record.json").write_text("{")
    with pytest.raises(
        DamagedError, match="this artifact, named keep:latest, are unknown, and nothing is removed"
    ):
        collect_garbage(root)
    assert len(root.artifacts("conversations")) == 1


def test_a_damaged_artifact_that_a_name_holds_is_no_garbage(
    tmp_path: Path, steps: FakeSteps
) -> None:
    with runner(tmp_path / "r", steps).open():
        runner(tmp_path / "r", steps).run()
    root = ArtifactRoot(tmp_path / "r")
    root.demote(root.artifacts("dump")[0])
    assert kinds(root, partials=True) == []


def test_files_of_operating_systems_are_no_garbage_and_no_obstacle(
    tmp_path: Path, steps: FakeSteps
) -> None:
    root = stopped_run(tmp_path, steps)
    (root.path / ".DS_Store").write_bytes(b"")
    (root.path / "refs" / "fake").mkdir(parents=True, exist_ok=True)
    (root.path / "refs" / "fake" / "._latest.json").write_bytes(b"\0")
    (root.artifacts("dump")[0].path / "Thumbs.db").write_bytes(b"")
    collect_garbage(root, partials=True)
    assert root.artifacts() == []


def test_what_killed_writes_left_goes_and_what_others_write_stays(
    tmp_path: Path, steps: FakeSteps
) -> None:
    root = stopped_run(tmp_path, steps)
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, alive = (f"{files._host()}-{pid}.1.tmp" for pid in (ended.pid, os.getpid()))
    places = [root.path / ".latentqa.json", root.path / "refs" / "fake" / ".latest.json"]
    left = [place.with_name(f"{place.name}.{dead}") for place in places]
    kept = [place.with_name(f"{place.name}.{alive}") for place in places]
    kept.append(root.path / ".my.json.backup.tmp")
    for path in left + kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{")
    collect_garbage(root)
    assert [path.exists() for path in left + kept] == [False] * 2 + [True] * 3


@pytest.mark.parametrize(
    "value",
    [
        {"artifacts": "abc", "number": 1},
        {"artifacts": {}, "number": 1},
        {"artifacts": [], "number": 1},
        {"artifacts": [1, 2], "number": 1},
        {"artifacts": ["dump/c9"], "number": 1},
        {"artifacts": ["dump/" + 64 * "a"], "number": "x"},
    ],
)
def test_nothing_is_removed_while_a_name_holds_what_is_none(
    tmp_path: Path, steps: FakeSteps, value: Any
) -> None:
    root = stopped_run(tmp_path, steps)
    (root.path / "refs" / "fake").mkdir(parents=True, exist_ok=True)
    (root.path / "refs" / "fake" / "1.json").write_text(json.dumps(value))
    with pytest.raises(
        DamagedError, match="so it is unknown which artifacts it names, and nothing is removed"
    ):
        collect_garbage(root)


def test_an_interrupted_removal_is_finished_by_the_next(
    tmp_path: Path, steps: FakeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = stopped_run(tmp_path, steps)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            collect_garbage(root)
    collect_garbage(root)
    left = [
        p for kind in ("conversations", "questions", "dump") for p in (root.path / kind).iterdir()
    ]
    assert left == []
