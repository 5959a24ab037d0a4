"""Digests of a store's files, and the damage that they find."""

from __future__ import annotations

import json
from pathlib import Path

import stores
from blake3 import blake3

from activation_store.layout.commit_records import commit_path
from activation_store.layout.file_digests import digest_file, find_damage


def test_a_record_has_size_and_blake3_of_each_file(whole: Path) -> None:
    files = json.loads(commit_path(whole, 0).read_text())["files"]
    for name, (size, digest) in files.items():
        content = (whole / name).read_bytes()
        assert (size, digest) == (len(content), blake3(content).hexdigest())


def test_a_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    known = digest_file(tmp_path / "x")
    assert find_damage(tmp_path, {"x": known}) == {}
    stores.flip(tmp_path / "x", 1.0)
    assert find_damage(tmp_path, {"x": known}) == {"x": "changed"}


def test_a_longer_file_is_changed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    known = digest_file(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"abcd")
    assert find_damage(tmp_path, {"x": known}) == {"x": "changed"}
