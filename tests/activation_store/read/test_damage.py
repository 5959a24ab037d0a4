"""Damaged stores: every reader notices, a second dump mends, verify says where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import stores

from activation_store.layout.checksummed_json import read_checksummed_json, write_checksummed_json
from activation_store.layout.commit_records import commit_path, list_commit_paths
from activation_store.layout.file_digests import Damage
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.read.verify import DamagedFile, verify
from core.errors import DamagedError, StoreError

DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": stores.flip,
    "truncated": stores.truncate,
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b"") and None,  # type: ignore[dict-item]
}
ARRAY_FILES = {
    "acts/L0/c.1.0": ("acts/L0", 1),
    "acts/L2/c.3.0": ("acts/L2", 3),
    "tokens/c.0": ("tokens", None),
    "segments/c.0": ("segments", None),
}
METADATA = [
    "plan.json",
    "index.parquet",
    "zarr.json",
    "acts/zarr.json",
    "acts/L0/zarr.json",
    "acts/L2/zarr.json",
    "tokens/zarr.json",
    "segments/zarr.json",
]


def read_all(root: Path) -> None:
    """Read everything of every example."""
    store = ActivationStore(root)
    for example in store.index:
        store.tokens(example)
        store.segments(example)
        for layer in store.layers:
            store.read(example, layer)


def test_an_undamaged_store_reads_and_verifies(whole: Path) -> None:
    read_all(whole)
    verdict = verify(whole)
    assert verdict.damaged == ()
    assert verdict.finished
    assert verdict.committed == verdict.planned == len(list_commit_paths(whole))
    assert verdict.files == len(stores.files(whole))


@pytest.mark.parametrize("file", ARRAY_FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_file_is_noticed_and_named(damage: str, file: str, store: Path) -> None:
    DAMAGES[damage](store / file)
    with pytest.raises(DamagedError, match=f"{file} ") as caught:
        read_all(store)
    assert caught.value.path == store / file
    array, shard = ARRAY_FILES[file]
    faults: dict[str, Damage] = {"flipped": "changed", "deleted": "missing"}
    fault = faults.get(damage, "truncated")
    assert verify(store).damaged == (DamagedFile(file=file, fault=fault, shard=shard, array=array),)


@pytest.mark.parametrize("file", METADATA)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metadata_is_noticed_and_named(damage: str, file: str, store: Path) -> None:
    DAMAGES[damage](store / file)
    with pytest.raises(DamagedError, match=file) as caught:
        read_all(store)
    assert caught.value.path == store / file
    judged = [f for f in verify(store).damaged if f.fault != "unverified"]
    assert [damaged.file for damaged in judged] == [file]


def test_files_whose_digests_are_lost_with_the_plan_are_unverified(store: Path) -> None:
    (store / "plan.json").unlink()
    found = {damaged.file for damaged in verify(store).damaged if damaged.fault == "unverified"}
    assert {"zarr.json", "index.parquet", "dropped.parquet", "acts/L0/zarr.json"} <= found
    assert not any(name.startswith(("acts/L0/c.", "commits/")) for name in found)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied"])
def test_a_damaged_commit_record_is_noticed_and_named(damage: str, store: Path) -> None:
    path = commit_path(store, 1)
    DAMAGES[damage](path)
    expected = DamagedFile(file="commits/000001.json", fault="changed", shard=1)
    assert verify(store).damaged == (expected,)
    read_all(store)  # root.json holds the same
    (store / "root.json").unlink()
    with pytest.raises(DamagedError, match=r"commits/000001.json"):
        read_all(store)


def test_a_deleted_commit_record_of_a_finished_store_is_a_finding(store: Path) -> None:
    commit_path(store, 1).unlink()
    expected = DamagedFile(file="commits/000001.json", fault="missing", shard=1)
    assert verify(store).damaged == (expected,)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_root_is_a_finding_and_mended_with_no_token(
    damage: str,
    rows: Path,
    model: ModelFiles,
    whole: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    DAMAGES[damage](store / "root.json")
    assert [finding.file for finding in verify(store).damaged] == ["root.json"]
    if damage != "deleted":  # without it the records are read
        with pytest.raises(DamagedError, match=r"root.json"):
            read_all(store)
    counted = stores.CountedTokens(monkeypatch)
    stores.fill(rows, store, model)
    assert counted.tokens == 0
    assert stores.contents(store) == stores.contents(whole)


def test_the_root_of_another_store_is_a_finding(
    rows: Path, model: ModelFiles, store: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    stores.fill(rows, other, model, layers=[1])
    shutil.copy(other / "root.json", store / "root.json")
    assert [str(finding) for finding in verify(store).damaged] == ["root.json: changed"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("canary.json", "root.json"),
        ("plan.json", "canary.json"),
        ("plan.json", "tokens/zarr.json"),
        ("plan.json", "dropped.parquet"),
        ("commits/000000.json", "commits/000001.json"),
        ("commits/000000.json", "root.json"),
        ("acts/L0/c.1.0", "acts/L0/c.2.0"),
        ("acts/L0/c.1.0", "acts/L2/c.1.0"),
        ("tokens/zarr.json", "segments/zarr.json"),
    ],
)
def test_swapped_files_are_both_found(one: str, other: str, store: Path) -> None:
    a, b = store / one, store / other
    a.rename(store / "aside")
    b.rename(a)
    (store / "aside").rename(b)
    assert {one, other} <= {finding.file for finding in verify(store).damaged}


def test_a_store_of_another_layout_is_refused(store: Path) -> None:
    write_checksummed_json(
        store / "plan.json", {**read_checksummed_json(store / "plan.json"), "schema": 7}
    )
    with pytest.raises(StoreError, match=r"layout is version 7, this program reads 4"):
        ActivationStore(store)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_canary_or_list_of_dropped_rows_is_a_finding(damage: str, store: Path) -> None:
    DAMAGES[damage](store / "dropped.parquet")
    DAMAGES[damage](store / "canary.json")
    assert [finding.file for finding in verify(store).damaged] == [
        "canary.json",
        "dropped.parquet",
    ]


def test_a_file_of_no_shard_is_a_finding(store: Path) -> None:
    (store / "acts" / "L0" / "c.99.0").write_bytes(b"x")
    assert verify(store).damaged == (DamagedFile(file="acts/L0/c.99.0", fault="extra"),)


def test_every_flipped_byte_of_an_array_file_is_found(store: Path) -> None:
    path = store / "segments" / "c.0"
    whole = path.read_bytes()
    for i in range(0, len(whole), 23):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert [finding.file for finding in verify(store).damaged] == ["segments/c.0"]


def test_several_faults_are_all_found(store: Path) -> None:
    stores.flip(store / "acts/L0/c.1.0")
    (store / "tokens/c.0").unlink()
    stores.truncate(store / "segments/c.0")
    assert [str(finding) for finding in verify(store).damaged] == [
        "acts/L0/c.1.0 (shard 1, acts/L0): changed",
        "segments/c.0: truncated",
        "tokens/c.0: missing",
    ]


def test_shards_are_checked_even_where_the_plan_is_lost(store: Path) -> None:
    (store / "plan.json").unlink()
    stores.flip(store / "acts/L2/c.0.0")
    verdict = verify(store)
    assert verdict.planned is None
    judged = [damaged.file for damaged in verdict.damaged if damaged.fault != "unverified"]
    assert judged == ["acts/L2/c.0.0", "plan.json"]


def test_a_dump_under_way_is_judged_by_what_is_committed(store: Path) -> None:
    stores.uncommit(store, 1)
    (store / "acts/L0/c.1.0").unlink()
    verdict = verify(store)
    assert verdict.damaged == ()
    assert not verdict.finished
    assert (verdict.planned or 0) - verdict.committed == 1


def test_no_store_is_an_error(tmp_path: Path) -> None:
    for look in (verify, ActivationStore):
        with pytest.raises(StoreError, match=r"no activation store is here \(no plan.json\)"):
            look(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "deleted"])
@pytest.mark.parametrize(
    ("files", "bad"),
    [
        (list(ARRAY_FILES), {1, 3}),
        (["commits/000001.json"], set()),
        (["commits/000001.json", "root.json"], {1}),
        (["acts/L0/c.0.0", "commits/000000.json"], {0}),
        (METADATA, set()),
        (["canary.json", "dropped.parquet"], set()),
    ],
    ids=["shards", "record", "records", "both", "metadata", "others"],
)
def test_a_second_dump_computes_the_bad_shards_alone(
    damage: str,
    files: list[str],
    bad: set[int],
    rows: Path,
    model: ModelFiles,
    whole: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = {
        i: read_checksummed_json(commit_path(store, i))["tokens"]
        for i in range(len(list_commit_paths(store)))
    }
    for file in files:
        DAMAGES[damage](store / file)
    counted = stores.CountedTokens(monkeypatch)
    stores.fill(rows, store, model)
    assert counted.tokens == sum(tokens[shard] for shard in bad)
    assert stores.contents(store) == stores.contents(whole)


def test_a_store_verifies_where_it_is_moved_to(whole: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(whole, tmp_path / "elsewhere")
    read_all(moved)
    assert verify(moved).damaged == ()
