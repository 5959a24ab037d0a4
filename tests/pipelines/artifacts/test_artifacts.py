"""An artifact is whole or absent, and says so when it is not what it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.documents.canonical import digest
from core.errors import DamagedError, StorageError
from core.files import sha256_file
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import IdentityError, StepIdentity
from pipelines.artifacts.root import ArtifactRoot


def identity(**config: Any) -> StepIdentity:
    return StepIdentity(
        kind="dump",
        version=1,
        config=config,
        inputs={"conversations": {"key": "a" * 64, "digest": "b" * 64}},
        external={},
    )


@pytest.fixture
def root(tmp_path: Path) -> ArtifactRoot:
    return ArtifactRoot(tmp_path / "root")


def make(root: ArtifactRoot, **config: Any) -> Artifact:
    partial = root.begin(identity(**config), keep_output=True)
    (partial.data / "deep").mkdir(exist_ok=True)
    (partial.data / "a.bin").write_bytes(b"aaaa")
    (partial.data / "deep" / "b.bin").write_bytes(b"bb")
    (partial.work / "scratch").write_bytes(b"x")
    return root.commit(identity(**config), {"counts": {"rows": 2}})


def test_nothing_is_a_miss(root: ArtifactRoot) -> None:
    assert root.lookup(identity()) is None


def test_a_partial_is_a_miss(root: ArtifactRoot) -> None:
    root.begin(identity())
    assert root.lookup(identity()) is None


def test_a_committed_artifact_is_a_hit(root: ArtifactRoot) -> None:
    made = make(root)
    assert root.lookup(identity()) == made


def test_layout_is_data_identity_and_record(root: ArtifactRoot) -> None:
    made = make(root)
    assert made.path == root.path / "dump" / identity().key[:16]
    assert sorted(p.name for p in made.path.iterdir()) == ["data", "identity.json", "record.json"]


def test_identity_file_holds_exactly_the_hashed_bytes(root: ArtifactRoot) -> None:
    assert (make(root).path / "identity.json").read_bytes() == identity().canonical()


def test_record_lists_files_with_size_and_digest(root: ArtifactRoot) -> None:
    made = make(root)
    assert made.record["files"] == [
        ["a.bin", 4, sha256_file(made.data / "a.bin")],
        ["deep/b.bin", 2, sha256_file(made.data / "deep" / "b.bin")],
    ]


def test_output_digest_covers_names_and_bytes_alone(root: ArtifactRoot) -> None:
    made = make(root)
    assert made.output == digest([[name, sha] for name, _, sha in made.record["files"]])
    assert make(root, other=1).output == made.output


def test_record_keeps_the_inputs_keys(root: ArtifactRoot) -> None:
    assert make(root).record["inputs"] == {"conversations": "a" * 64}


def test_begin_keeps_what_an_earlier_attempt_wrote(root: ArtifactRoot) -> None:
    partial = root.begin(identity())
    (partial.data / "a.bin").write_bytes(b"aaaa")
    (partial.work / "checkpoint").write_bytes(b"c")
    again = root.begin(identity(), keep_output=True)
    assert (again.data / "a.bin").read_bytes() == b"aaaa"
    assert (again.work / "checkpoint").read_bytes() == b"c"


def test_begin_removes_the_output_of_an_earlier_attempt_that_is_not_resumed(
    root: ArtifactRoot,
) -> None:
    partial = root.begin(identity())
    (partial.data / "left.tmp").write_bytes(b"aaaa")
    (partial.work / "checkpoint").write_bytes(b"c")
    again = root.begin(identity())
    assert list(again.data.iterdir()) == []
    assert (again.work / "checkpoint").read_bytes() == b"c"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda a: (a.data / "a.bin").unlink(), r"a\.bin: the file is missing"),
        (lambda a: os.truncate(a.data / "a.bin", 3), r"3 bytes, expected 4 by the record"),
        (
            lambda a: (a.data / "c.bin").write_bytes(b""),
            r"c\.bin: the record does not list this file",
        ),
        (lambda a: (a.path / "record.json").unlink(), r"record\.json: the file is missing"),
        (lambda a: (a.path / "record.json").write_bytes(b"{"), r"record\.json: not JSON"),
        (lambda a: (a.path / "identity.json").write_bytes(b""), r"identity\.json: not JSON"),
    ],
)
def test_a_hit_notices(root: ArtifactRoot, harm: Any, words: str) -> None:
    harm(make(root))
    with pytest.raises(DamagedError, match=words) as caught:
        root.lookup(identity())
    assert root.owner(caught.value.path) == Artifact(root.folder("dump", identity().key))


def test_another_identity_under_the_same_name_is_an_error_field_by_field(
    root: ArtifactRoot,
) -> None:
    made = make(root, layers=14)
    value = json.loads((made.path / "identity.json").read_bytes())
    value["config"]["layers"] = 15
    (made.path / "identity.json").write_text(json.dumps(value))
    with pytest.raises(IdentityError, match=r"config\.layers: 15 → 14"):
        root.lookup(identity(layers=14))


def test_another_whole_key_under_the_same_name_is_an_error(root: ArtifactRoot) -> None:
    made = make(root)
    record = {**made.record, "key": made.key[:16] + "0" * 48}
    (made.path / "record.json").write_text(json.dumps(record))
    with pytest.raises(IdentityError, match="its identity does not match its name"):
        root.lookup(identity())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write other bytes of the same size, and give the file the time that it had."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_flipped_byte_is_found_by_reading_all(root: ArtifactRoot) -> None:
    made = make(root)
    replace_bytes(made.data / "deep" / "b.bin", b"bc")
    assert root.lookup(identity()) is not None
    with pytest.raises(DamagedError, match=r"b\.bin: its content differs from the record"):
        made.check_bytes()
    assert made.damaged_files() == ["deep/b.bin"]


def test_a_hit_notices_a_file_that_was_written_after_the_record(root: ArtifactRoot) -> None:
    made = make(root)
    (made.data / "deep" / "b.bin").write_bytes(b"bc")
    os.utime(made.data / "deep" / "b.bin", (2**31, 2**31))
    with pytest.raises(DamagedError, match=r"b\.bin: its content differs from the record"):
        root.lookup(identity())


def test_a_hit_notices_what_was_found_by_reading_all(root: ArtifactRoot) -> None:
    made = make(root)
    replace_bytes(made.data / "deep" / "b.bin", b"bc")
    os.utime(made.path / "record.json", (1, 1))
    os.utime(made.data / "a.bin", (0, 0))
    os.utime(made.data / "deep" / "b.bin", (0, 0))
    assert root.lookup(identity()) is not None
    made.damaged_files()
    with pytest.raises(DamagedError):
        root.lookup(identity())


def test_a_file_with_a_new_time_and_its_own_bytes_is_read_once(
    root: ArtifactRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(root)
    (made.data / "a.bin").touch()
    os.utime(made.path / "record.json", (1, 1))
    assert root.lookup(identity()) is not None
    monkeypatch.setattr(Artifact, "damaged_files", lambda self: 1 / 0)
    assert root.lookup(identity()) is not None


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._a.bin"])
def test_files_of_operating_systems_are_no_damage(root: ArtifactRoot, name: str) -> None:
    made = make(root)
    (made.data / name).write_bytes(b"x")
    assert root.lookup(identity()) == made
    assert made.damaged_files() == []


def test_what_a_killed_write_left_is_no_part_of_an_artifact(root: ArtifactRoot) -> None:
    partial = root.begin(identity())
    (partial.data / ".a.bin.17.18.tmp").write_bytes(b"aa")
    (partial.path / ".record.json.17.18.tmp").write_bytes(b"{")
    made = make(root)
    names = [p.name for p in made.path.rglob("*")]
    assert not [name for name in names if name.endswith(".tmp")]
    assert [name for name, _, _ in made.record["files"]] == ["a.bin", "deep/b.bin"]


def test_demotion_keeps_good_files_alone(root: ArtifactRoot) -> None:
    made = make(root)
    (made.data / "a.bin").write_bytes(b"aaab")
    (made.data / "stranger").write_bytes(b"s")
    root.demote(made)
    assert root.lookup(identity()) is None
    assert [p.name for p in root.partial(identity()).data.rglob("*")] == ["deep", "b.bin"]


def test_demotion_without_a_record_keeps_what_is_there(root: ArtifactRoot) -> None:
    made = make(root)
    (made.path / "record.json").unlink()
    root.demote(made)
    assert (root.partial(identity()).data / "a.bin").exists()


def test_a_commit_killed_before_its_rename_is_finished(root: ArtifactRoot) -> None:
    made = make(root)
    os.rename(made.path, root.partial(identity()).path)
    assert root.recover(identity()) == made
    assert root.lookup(identity()) == made


def test_a_commit_killed_before_its_rename_and_damaged_is_not_finished(root: ArtifactRoot) -> None:
    made = make(root)
    (made.data / "a.bin").write_bytes(b"aaab")
    os.rename(made.path, root.partial(identity()).path)
    assert root.recover(identity()) is None
    assert root.lookup(identity()) is None


def test_listing_tells_whole_from_unfinished(root: ArtifactRoot) -> None:
    made = make(root)
    root.begin(identity(other=1))
    assert root.artifacts() == [made]
    assert [p.short for p in root.partials()] == [identity(other=1).short]


def test_nothing_outside_the_root_is_owned(root: ArtifactRoot, tmp_path: Path) -> None:
    assert root.owner(tmp_path / "elsewhere" / "x" / "y") is None


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot write here"):
        ArtifactRoot(tmp_path / "root").begin(identity())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inputs", None),
        ("inputs", []),
        ("inputs", {"a": 5}),
        ("files", 5),
        ("files", {"a.bin": 4}),
        ("files", [["a.bin", 4]]),
        ("files", [["a.bin", "4", None]]),
        ("key", 7),
    ],
)
def test_a_record_of_other_types_is_damage(root: ArtifactRoot, field: str, value: Any) -> None:
    made = make(root)
    path = made.path / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DamagedError, match=f"field {field} has a wrong type"):
        root.lookup(identity())
    assert root.artifacts() == []
    assert root.unreadable() == [made.path]
