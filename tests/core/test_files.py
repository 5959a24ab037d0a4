"""Files and folders are whole or absent, and a full disk is one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.errors import DamagedError, StorageError
from core.files import (
    folder_bytes,
    fsync_tree,
    new_folder,
    sha256_file,
    storage_errors,
    write_bytes,
    write_files,
    write_json,
)


def test_bytes_are_written_into_folders_that_are_made(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b", b"data")
    assert (tmp_path / "a" / "b").read_bytes() == b"data"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_failed_write_leaves_the_old_bytes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"a: the disk is full\. Finished work is kept"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_threads_writing_one_file_leave_one_of_their_values(tmp_path: Path) -> None:
    path = tmp_path / "a"
    values = [bytes([i]) * 50_000 for i in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(path, value)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in values
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("I/O error: No space left on device (os error 28)", "the disk is full"),
        ("I/O error: File too large (os error 27)", "a file is larger than the file system"),
    ],
)
def test_a_folder_that_a_library_cannot_fill_is_one_line(
    words: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=told), new_folder(tmp_path / "out"):
        raise RuntimeError(words)
    assert os.listdir(tmp_path) == []


def test_a_limit_of_the_length_of_files_is_one_line(tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys; from pathlib import Path;"
        "from core.files import write_bytes;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "write_bytes(Path(sys.argv[1]), bytes(1000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path / "a")], capture_output=True, check=False
    )
    assert b"a: a file is larger than the file system or the limit of this process" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_refused_write_names_the_folder_and_the_way_out(code: int, tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot write here .*--root"),
        storage_errors(tmp_path),
    ):
        raise OSError(code, "no")


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "none").read_bytes()


def test_json_is_sorted_and_keeps_its_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "ü", "a": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert "ü" in text
    assert json.loads(text) == {"a": [1], "b": "ü"}


def test_a_new_folder_appears_when_it_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with new_folder(target) as aside:
        (aside / "a").write_text("x")
        assert not target.exists()
    assert (target / "a").read_text() == "x"
    assert os.listdir(tmp_path / "deep") == ["out"]


def test_a_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "out") as aside:
            (aside / "a").write_text("x")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fill()
    assert os.listdir(tmp_path) == []


def test_a_new_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("x")
    assert (tmp_path / "out" / "a").is_file()


def test_a_new_folder_never_replaces_work(tmp_path: Path) -> None:
    write_bytes(tmp_path / "out" / "a", b"work")
    with pytest.raises(StorageError, match="already exists"), new_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "a").read_bytes() == b"work"


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea")


def test_a_tree_is_synced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a" / "b", b"x")
    synced: list[str] = []
    real = os.fsync

    def note(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    fsync_tree(tmp_path)
    assert synced == [str(tmp_path / "a"), str(tmp_path / "a" / "b"), str(tmp_path)]


def test_a_damaged_error_survives_its_way_between_processes(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(DamagedError("bad bytes", tmp_path)))
    assert isinstance(error, DamagedError)
    assert isinstance(error, OSError)
    assert str(error) == "bad bytes"
    assert error.path == tmp_path
    assert error.exit_code == 1


def test_user_errors_are_the_builtins_that_they_stand_for() -> None:
    error = StorageError("out: the disk is full.")
    assert isinstance(error, OSError)
    assert (str(error), error.exit_code) == ("out: the disk is full.", 2)
    assert str(pickle.loads(pickle.dumps(error))) == "out: the disk is full."


def test_a_disk_that_refuses_everything_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *words: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_bytes", refused)
    monkeypatch.setattr(Path, "unlink", refused)  # of a name that is not there, too
    with pytest.raises(StorageError, match=r"a/b: cannot write here"):
        write_bytes(tmp_path / "a" / "b", b"data")


def test_several_files_are_written_each_whole(tmp_path: Path) -> None:
    files = {tmp_path / name: name.encode() for name in ("a", "b", "sub/c")}
    write_files(files)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_file_that_goes_away_while_bytes_are_counted_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_bytes(b"12345")
    (tmp_path / "going").write_bytes(b"1")
    plain = Path.is_file

    def gone(path: Path) -> bool:
        found = plain(path)
        if path.name == "going":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", gone)
    assert folder_bytes(tmp_path) == 5
