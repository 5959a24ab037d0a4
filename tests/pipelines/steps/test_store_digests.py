"""An activation store is known by its own root digest, and later keys by what it holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import stores
import tiny

from activation_store.model_files.files import ModelFiles, resolve_model
from core.errors import DamagedError
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import StepIdentity
from pipelines.artifacts.root import ArtifactRoot
from pipelines.steps.dump import store_digests


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return resolve_model(str(tiny.save(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.table(tmp_path_factory.mktemp("rows"), stores.conversations(4))


def commit(root: ArtifactRoot, number: int, tables: Path, model: ModelFiles) -> Artifact:
    """Dump the rows as an artifact; another number, another key and another layout."""
    identity = StepIdentity(kind="dump", version=1, config={"n": number}, inputs={}, external={})
    partial = root.begin(identity, keep_output=True)
    reusable = [a.data for a in root.artifacts("dump")]
    stores.fill(tables, partial.data, model, reusable=reusable)
    return root.commit(identity, {"counts": {}}, store_digests(partial.data))


@pytest.fixture
def root(tmp_path: Path) -> ArtifactRoot:
    return ArtifactRoot(tmp_path / "root")


def test_a_layout_that_follows_from_other_stores_changes_no_later_key(
    root: ArtifactRoot, tables: Path, model: ModelFiles, tmp_path: Path
) -> None:
    some = stores.table(tmp_path / "some", stores.conversations(2))
    commit(root, 1, some, model)
    reused = commit(root, 2, tables, model)
    (tmp_path / "alone").mkdir()
    stores.fill(tables, tmp_path / "alone", model)
    alone = store_digests(tmp_path / "alone")
    assert reused.store_root != alone.root
    assert reused.output == alone.content


def test_other_rows_are_other_content(
    root: ArtifactRoot, tables: Path, model: ModelFiles, tmp_path: Path
) -> None:
    some = stores.table(tmp_path / "some", stores.conversations(2))
    assert commit(root, 1, some, model).output != commit(root, 2, tables, model).output


def test_the_record_has_the_root_digest_and_no_digest_of_each_file(
    root: ArtifactRoot, tables: Path, model: ModelFiles
) -> None:
    made = commit(root, 1, tables, model)
    assert made.record["store_root"] == store_digests(made.data).root
    assert {sha256 for _, _, sha256 in made.record["files"]} == {None}
    assert made.damaged_files() == []


def test_a_flipped_byte_is_found_by_reading_all(
    root: ArtifactRoot, tables: Path, model: ModelFiles
) -> None:
    made = commit(root, 1, tables, model)
    stores.flip(made.data / "acts/L2/c.0.0")
    assert made.damaged_files() == ["acts/L2/c.0.0"]


def test_another_whole_store_of_the_same_sizes_is_noticed_before_it_is_read(
    root: ArtifactRoot, tables: Path, model: ModelFiles, tmp_path: Path
) -> None:
    made = commit(root, 1, tables, model)
    other = resolve_model(str(tiny.save(tmp_path / "other", seed=7)))
    (tmp_path / "store").mkdir()
    stores.fill(tables, tmp_path / "store", other)
    for name, _, _ in made.record["files"]:
        stat = (made.data / name).stat()
        shutil.copyfile(tmp_path / "store" / name, made.data / name)
        os.utime(made.data / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DamagedError, match=r"root\.json: its content differs from the record"):
        made.check_bytes()
