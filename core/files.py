"""Write files whole or not at all: to a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import LatentQAError, StorageError
from core.liveness import is_running, machine_name

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_ROOM = {"No space left on device": errno.ENOSPC, "os error 28": errno.ENOSPC} | dict.fromkeys(
    ("File too large", "os error 27"), errno.EFBIG
)
"""Words of libraries that keep no number of the operating system's error."""
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk below `path`, or a limit of it, into one line that says so.

    Raises:
        StorageError: in place of the OSError; every other error passes unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or error.errno == errno.EFBIG:
            raise _no_room(path, error.errno) from error
        if error.errno in _REFUSED:
            raise StorageError(
                f"{path}: cannot write here ({os.strerror(error.errno or 0)}). Choose "
                "another folder with --root, or change the permissions."
            ) from error
        raise


@contextlib.contextmanager
def full_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk below `path` into one line, however the library that met it words it.

    Raises:
        StorageError: in place of the library's error; as `storage_errors` too.
    """
    try:
        with storage_errors(path):
            yield
    except LatentQAError:
        raise
    except Exception as error:
        number = _find_no_room(error)
        there = next(place for place in (path, *path.parents) if place.exists())
        if number is None and shutil.disk_usage(there).free < 1 << 16:
            number = errno.ENOSPC
        if number is not None:
            raise _no_room(path, number) from error
        raise


def _find_no_room(error: BaseException | None) -> int | None:
    """Return the operating system's number of a full disk or a limit behind a library's error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {*_FULL, errno.EFBIG}:
            return error.errno
        text = str(error)
        if number := next((number for words, number in _NO_ROOM.items() if words in text), None):
            return number
        error = error.__cause__ or error.__context__
    return None


def _no_room(path: Path, number: int) -> StorageError:
    if number == errno.EFBIG:
        return StorageError(
            f"{path}: a file is larger than the file system or the limit of this process "
            "(ulimit -f) allows. Raise the limit, or choose a folder elsewhere."
        )
    return StorageError(
        f"{path}: the disk is full. Finished work is kept; free some space and run again."
    )


def fsync_dir(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Make every file and rename below `folder` durable."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fsync_file(path)
        elif path.is_dir():
            fsync_dir(path)
    fsync_dir(folder)


def folder_bytes(folder: Path) -> int:
    """Sum the bytes of the files below `folder`; a file that vanishes meanwhile counts as 0."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                total += path.stat().st_size
    return total


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` atomically and durably: readers see all of `data` or the file before it.

    Raises:
        StorageError: the disk is full or read-only.
    """
    write_files({path: data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write several files, each as `write_bytes` does; each folder is synced once.

    After an error or a kill some may be in place and others not, but each is whole or as it was.

    Raises:
        StorageError: the disk is full or read-only.
    """
    asides: dict[Path, Path] = {}
    folders = dict.fromkeys(path.parent for path in files)
    try:
        for path, data in files.items():
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                asides[path] = _aside(path)
                asides[path].write_bytes(data)
        for path, aside in asides.items():
            with storage_errors(path):
                fsync_file(aside)
                os.replace(aside, path)
        for folder in folders:
            with storage_errors(folder):
                fsync_dir(folder)
    except BaseException:
        for aside in asides.values():
            with contextlib.suppress(OSError):
                aside.unlink()
        raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create a folder that is whole or absent: filled aside, synced, renamed to `path` at the end.

    Raises:
        StorageError: the disk is full or read-only, or something stands at `path` already.
    """
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists():
        raise StorageError(
            f"{path}: already exists and is not empty, expected a new or empty folder. Name "
            "another folder, or move this one away."
        )
    with full_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        aside = _aside(path)
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed process of the same number
        aside.mkdir()
        try:
            yield aside
            fsync_tree(aside)
            os.rename(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        fsync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically and durably."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return the bytes that `write_json` writes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def sha256_file(path: Path) -> str:
    """Return the sha256 of the bytes of a regular file, as 64 hex digits.

    Raises:
        OSError: it cannot be read; a StorageError where it is no regular file.
    """
    _check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: it cannot be read; a StorageError where it is no regular file.
    """
    _check_regular(path)
    return path.read_bytes()


def _check_regular(path: Path) -> None:
    """Refuse a pipe, which is read when somebody writes to it, and a device, which has no end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        mode = 0
    if not stat.S_ISREG(mode):
        raise StorageError(
            f"{path}: is a folder, pipe, socket, device or circle of links, no file."
        )


def file_states(paths: Iterable[Path]) -> dict[tuple[Path, bool], os.stat_result]:
    """Return what the file system says of files, of links that lead to them and of their folders.

    Args:
        paths: the files.

    Returns:
        The state by path, and by whether links are followed.
    """
    found = {}
    for path in {place for own in paths for place in (own, own.parent)}:
        for follow in (True, False):
            with contextlib.suppress(FileNotFoundError):  # what is missing is found by its reader
                found[path, follow] = os.stat(path, follow_symlinks=follow)
    return found


def find_replaced(states: Mapping[tuple[Path, bool], os.stat_result]) -> Path | None:
    """Return a path that was written, or moved away and back, since `file_states`; None if none.

    The time at which an inode changed cannot be set, so it shows a file whose bytes were changed
    and put back. New rights, owners and hard links change it too, and a file beside it that of a
    folder: where one of these explains the change, nothing was replaced.
    """
    for (path, follow), before in states.items():
        try:
            now = os.stat(path, follow_symlinks=follow)
        except OSError:
            return path
        if (now.st_ino, now.st_dev) != (before.st_ino, before.st_dev):
            return path
        is_written = (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
        if is_written and not stat.S_ISDIR(now.st_mode):
            return path
        ways = ("st_mode", "st_uid", "st_gid", "st_nlink")
        is_explained = is_written or any(getattr(now, way) != getattr(before, way) for way in ways)
        if now.st_ctime_ns != before.st_ctime_ns and not is_explained:
            return path
    return None


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path` while they wrote it."""
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        host, _, rest = aside.name.removeprefix(f".{path.name}.").partition("-")
        pid = rest.partition(".")[0]
        if host == _host() and pid.isdecimal() and not is_running(int(pid)):
            if aside.is_dir():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    writer = f"{_host()}-{os.getpid()}.{threading.get_ident()}"
    return path.with_name(f".{path.name}.{writer}.tmp")


def _host() -> str:
    """Return this machine's name in few letters: a shared folder has files of several machines."""
    return f"{zlib.crc32(machine_name().encode()):08x}"
