"""Marks of files: the digest says by which algorithm it is, and older ones are still judged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import stores
from blake3 import blake3

from activation_store.layout.commit_records import commit_path, commit_records, read_commit
from activation_store.layout.file_marks import broken, file_mark
from activation_store.layout.root_record import write_root
from activation_store.layout.sealed_json import read_sealed, write_sealed
from activation_store.read.reader import ActivationStore
from activation_store.read.verify import verify
from activation_store.target.files import ModelFiles
from core.errors import StoreError


def remark(store: Path, algorithm: str) -> None:
    """Give every record of a store digests of another algorithm."""
    for path in commit_records(store):
        record = read_sealed(path)
        for name, mark in record["files"].items():
            digest = hashlib.sha256((store / name).read_bytes()).hexdigest()
            record["files"][name] = [mark[0], f"{algorithm}{digest}"]
        write_sealed(path, record)
    root = write_root(store)
    write_sealed(store / "canary.json", {**read_sealed(store / "canary.json"), "root": root})


def test_a_record_names_the_algorithm_of_its_digests(whole: Path) -> None:
    files = json.loads(commit_path(whole, 0).read_text())["files"]
    for name, (size, digest) in files.items():
        content = (whole / name).read_bytes()
        assert (size, digest) == (len(content), f"blake3:{blake3(content).hexdigest()}")


def test_a_mark_is_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    mark = file_mark(tmp_path / "x")
    assert broken(tmp_path, {"x": mark}) == {}
    stores.flip(tmp_path / "x", 1.0)
    assert broken(tmp_path, {"x": mark}) == {"x": "changed"}


def test_a_store_with_digests_of_before_is_read_and_verified(store: Path) -> None:
    remark(store, "")
    assert verify(store).findings == ()
    opened = ActivationStore(store)
    assert len(opened.read(next(iter(opened.index)), 0))
    stores.flip(store / "acts/L0/c/1/0")
    assert [str(f) for f in verify(store).findings] == ["acts/L0/c/1/0 (shard 1, acts/L0): changed"]


def test_a_digest_of_a_newer_algorithm_is_no_damage_but_refused(store: Path) -> None:
    remark(store, "sha4:")
    with pytest.raises(StoreError, match=r"its digest is by sha4, .* Read the store with a newer"):
        verify(store)


def test_what_is_taken_over_from_a_store_of_before_gets_a_digest_of_today(
    rows: Path, model: ModelFiles, whole: Path, store: Path, tmp_path: Path
) -> None:
    remark(store, "")
    stores.fill(rows, tmp_path / "new", model, others=[store])
    shared, own = tmp_path / "new" / "acts/L0/c/0/0", store / "acts/L0/c/0/0"
    assert shared.stat().st_ino == own.stat().st_ino
    assert read_commit(commit_path(tmp_path / "new", 0)).files["acts/L0/c/0/0"] == file_mark(own)
