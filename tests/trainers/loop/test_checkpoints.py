"""Which checkpoints are taken for whole."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from core.errors import StorageError
from core.files import storage_errors
from trainers.loop import checkpoints


def write(work: Path, *steps: int) -> None:
    for step in steps:
        folder = checkpoints.checkpoint_folder(work, step)
        folder.mkdir()
        (folder / "weights").write_bytes(b"w" * step)
        (folder / "state").write_bytes(b"s")
        checkpoints.seal(folder)


def left(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


def test_the_newest_is_taken_by_number(tmp_path: Path) -> None:
    write(tmp_path, 9, 10, 100)
    assert checkpoints.keep_whole(tmp_path) == tmp_path / "checkpoint-100"


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert checkpoints.keep_whole(tmp_path) is None


@pytest.mark.parametrize("harm", ["truncated", "changed", "missing", "no seal", "half a seal"])
def test_what_is_not_whole_is_removed(tmp_path: Path, harm: str) -> None:
    write(tmp_path, 5, 10)
    folder = tmp_path / "checkpoint-10"
    match harm:
        case "truncated":
            (folder / "weights").write_bytes(b"w" * 9)
        case "changed":
            (folder / "weights").write_bytes(b"x" * 10)
        case "missing":
            (folder / "weights").unlink()
        case "no seal":
            (folder / "whole.json").unlink()
        case "half a seal":
            (folder / "whole.json").write_text('{"weights": "ab')
    assert checkpoints.keep_whole(tmp_path) == tmp_path / "checkpoint-5"
    assert left(tmp_path) == ["checkpoint-5"]


def test_a_damaged_one_takes_the_later_along_for_it_may_be_the_best(tmp_path: Path) -> None:
    write(tmp_path, 5, 10, 15)
    (tmp_path / "checkpoint-10" / "weights").write_bytes(b"")
    assert checkpoints.keep_whole(tmp_path) == tmp_path / "checkpoint-5"
    assert left(tmp_path) == ["checkpoint-5"]


def test_a_full_disk_behind_another_error_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**where: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with (
        pytest.raises(StorageError, match="the disk is full"),
        storage_errors(tmp_path),
        checkpoints.surface_full_disk(tmp_path),
    ):
        raise RuntimeError("unexpected pos 576 vs 534")


def test_an_error_on_a_disk_with_room_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), checkpoints.surface_full_disk(tmp_path):
        raise RuntimeError("shapes")
    assert left(tmp_path) == []
