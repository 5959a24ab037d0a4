"""What people, programs and other users leave in an artifact root stops or misleads no command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Called
from fake_steps import FakeSteps, runner, use_fake_steps

from core.errors import DamagedError, StorageError
from pipelines.artifacts.gc import collect_garbage, find_garbage
from pipelines.artifacts.locks import exclusive, holder
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

pytestmark = pytest.mark.timeout(60)


def finished_run(path: Path, log: Path) -> ArtifactRoot:
    made = runner(path, FakeSteps(log, pieces=1))
    with made.open():
        made.run()
    return ArtifactRoot(path)


@pytest.fixture
def root(tmp_path: Path) -> ArtifactRoot:
    return finished_run(tmp_path / "r", tmp_path / "log")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES = pytest.mark.parametrize("put", [pipe, unix_socket, loop, endless])


@NO_FILES
@pytest.mark.parametrize("place", ["refs/fake/latest.json", "refs/paper/latest.json"])
def test_no_file_in_place_of_a_name_hangs_nothing_and_keeps_all(
    put: Callable[[Path], None],
    place: str,
    root: ArtifactRoot,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root.path / place).unlink(missing_ok=True)
    (root.path / place).parent.mkdir(exist_ok=True)
    put(root.path / place)
    with pytest.raises(DamagedError, match="cannot be read, so it is unknown which artifacts"):
        collect_garbage(root)
    assert len(root.artifacts()) == 6
    assert Called(capsys, "ls", "--root", str(root.path)).code == 0


@NO_FILES
@pytest.mark.parametrize("name", ["record.json", "identity.json"])
def test_no_file_in_place_of_a_record_is_damage_that_a_run_mends(
    put: Callable[[Path], None],
    name: str,
    root: ArtifactRoot,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = root.artifacts("dump")[0].path / name
    place.unlink()
    put(place)
    where = ("--root", str(root.path))
    assert Called(capsys, "verify", *where).code == (name == "identity.json")
    use_fake_steps(tmp_path, monkeypatch)
    assert Called(capsys, "run", str(tmp_path / "fake.yaml"), *where).code == 0
    assert Called(capsys, "verify", *where).code == 0
    assert len(root.artifacts()) == 6


@NO_FILES
def test_no_file_in_an_unfinished_folder_is_somebody_elses(
    put: Callable[[Path], None], root: ArtifactRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = root.path / "dump" / "0123456789abcdef.partial"
    folder.mkdir()
    put(folder / "identity.json")
    assert Called(capsys, "ls", "--root", str(root.path)).code == 0
    assert collect_garbage(root, partials=True) == []
    assert folder.is_dir()


@pytest.mark.parametrize("lost", ["file", "link", "folder of a name"])
def test_nothing_is_removed_while_the_names_are_out_of_reach(root: ArtifactRoot, lost: str) -> None:
    refs = root.path / "refs"
    if lost == "folder of a name":
        (refs / "paper").symlink_to("unmounted/paper")
    else:
        shutil.rmtree(refs)
        refs.write_text("") if lost == "file" else refs.symlink_to("unmounted/refs")
    with pytest.raises(DamagedError, match="cannot be read, so it is unknown which artifacts"):
        collect_garbage(root, partials=True)
    assert len(root.artifacts()) == 6


def test_folders_that_systems_make_beside_names_and_kinds_block_nothing(
    root: ArtifactRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("refs/@eaDir/latest.json", "refs/fake/@latest.json", "lost+found/x", "@eaDir/x"):
        (root.path / place).parent.mkdir(exist_ok=True)
        (root.path / place).write_bytes(b"\0")
    assert collect_garbage(root, partials=True) == []
    assert Called(capsys, "ls", "--root", str(root.path)).code == 0


def test_a_lock_is_no_link_to_somebodys_file(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "a.lock").symlink_to("thesis")
    with (
        pytest.raises(StorageError, match="cannot be created"),
        exclusive(tmp_path / "a.lock", print),
    ):
        pass
    assert (tmp_path / "thesis").read_text() == "mine"
    os.mkfifo(tmp_path / "b.lock")
    assert holder(tmp_path / "b.lock") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created", [1]),
        ("created", "\ud800"),
        ("seconds", "x"),
        ("seconds", float("nan")),
        ("seconds", 10**400),
        ("seconds", -1),
        ("tokens", "many"),
        ("cost", {}),
        ("locations", "here"),
        ("git", []),
    ],
)
def test_a_record_with_another_type_is_damage_and_no_error_of_ours(
    field: str, value: Any, root: ArtifactRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = root.artifacts("dump")[0]
    record = json.loads((dump.path / "record.json").read_text())
    (dump.path / "record.json").write_text(json.dumps({**record, field: value}))
    for words in (["ls"], ["show", "fake"], ["gc", "--keep-last", "1"], ["verify"]):
        called = Called(capsys, *words, "--root", str(root.path))
        assert "Error" not in called.err
        assert called.code == (words != ["ls"])
    assert (
        f"field {field} has a wrong type"
        in Called(capsys, "show", "fake", "--root", str(root.path)).err
    )


@contextlib.contextmanager
def other_user() -> Iterator[None]:
    """Be a user without rights, where this one has all."""
    if os.getuid():
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def shared_root() -> Iterator[ArtifactRoot]:
    """Make a root in which all users may read and write."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        root = finished_run(Path(folder) / "r", Path(folder) / "log")
        for path in (root.path, *root.path.rglob("*")):
            path.chmod(0o777)
        yield root
        for path in (root.path, *root.path.glob("*")):
            path.chmod(0o777)


@pytest.mark.parametrize("place", ["refs", "refs/fake", "dump", "dump/*", "dump/*/record.json"])
def test_nothing_is_removed_while_a_part_may_not_be_read(
    place: str, shared_root: ArtifactRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    if "dump" in place:  # named alone, so that the rest is held by its record
        for name in Refs(shared_root).names():
            Refs(shared_root).untag(str(name))
        Refs(shared_root).tag(shared_root.artifacts("dump")[0].short, "keep")
    closed = next(shared_root.path.glob(place))
    closed.chmod(0)
    with other_user():
        for find in (find_garbage, collect_garbage):
            with pytest.raises(OSError, match=r" be read, so .* nothing is removed"):
                find(shared_root)
        assert Called(capsys, "ls", "--root", str(shared_root.path)).code == 0
    closed.chmod(0o777)
    assert len(shared_root.artifacts()) == 6


def test_a_folder_of_another_user_in_the_root_stops_nothing(
    shared_root: ArtifactRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    (shared_root.path / "private").mkdir(mode=0)
    with other_user():
        assert collect_garbage(shared_root, partials=True) == []
        for words in (["ls"], ["gc"], ["verify"]):
            assert Called(capsys, *words, "--root", str(shared_root.path)).code == 0
