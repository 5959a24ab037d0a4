"""`latentqa store`: what a store holds, and whether its bytes are still the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import stores
import tiny
from command_line import Run

from activation_store.layout.commit_records import commit_path, list_commit_paths
from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore
from core.files import write_json
from pipelines.artifacts.cache_key import StepIdentity
from pipelines.artifacts.root import ArtifactRoot


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return resolve_model(str(tiny.save(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: ModelFiles) -> Path:
    """Make a complete store, for reading only."""
    rows = stores.table(tmp_path_factory.mktemp("rows"), stores.conversations(3))
    out = tmp_path_factory.mktemp("whole")
    stores.fill(rows, out, model)
    return out


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "store")


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """Make an artifact root with that store as a finished dump."""
    place = ArtifactRoot(tmp_path / "root")
    identity = StepIdentity(kind="dump", version=1, config={}, inputs={}, external={"weights": "w"})
    partial = place.begin(identity)
    shutil.copytree(whole, partial.data, dirs_exist_ok=True)
    place.commit(identity, {"counts": {}, "created": "2026-01-01T00:00:00"})
    return place.path


def test_info_says_what_a_store_holds(store: Path, model: ModelFiles, run: Run) -> None:
    code, out, _ = run("store", "info", str(store), "--json")
    found = json.loads(out)
    shards = len(list_commit_paths(store))
    assert code == 0
    assert found["path"] == str(store)
    assert found["sequences"] == 12
    assert found["shards"] == {"committed": shards, "planned": shards}
    assert found["layers"] == [0, 2]
    assert found["d_model"] == 32
    assert (found["dtype"], found["compute_dtype"]) == ("bfloat16", "float32")
    assert found["target"] == model.digests()
    assert found["bytes"] == sum(map(len, stores.contents(store).values()))
    assert found["canary"]["max_relative"] <= found["canary"]["tolerance"]


def test_info_reads_well(store: Path, run: Run) -> None:
    code, out, _ = run("store", "info", str(store))
    shards = len(list_commit_paths(store))
    assert code == 0
    assert f"shards     {shards} of {shards} committed" in out
    assert "layers     0, 2; d_model 32" in out
    assert "sequences recomputed, largest relative difference" in out


def test_info_of_a_dump_under_way_says_so(store: Path, run: Run) -> None:
    stores.uncommit(store, 0)
    planned = len(list_commit_paths(store)) + 1
    _, out, _ = run("store", "info", str(store), "--json")
    found = json.loads(out)
    assert found["shards"] == {"committed": planned - 1, "planned": planned}
    assert found["canary"] is None
    assert "not checked yet" in run("store", "info", str(store))[1]


@pytest.mark.parametrize("ref", ["dump/", "path", "data"])
def test_a_store_has_a_ref(ref: str, root: Path, run: Run) -> None:
    (artifact,) = ArtifactRoot(root).artifacts("dump")
    name = {
        "dump/": f"dump/{artifact.key[:6]}",
        "path": str(artifact.path),
        "data": str(artifact.data),
    }[ref]
    for command in ("info", "verify"):
        code, out, _ = run("store", command, name, "--root", str(root), "--json")
        assert code == 0
        assert json.loads(out)["path"] == str(artifact.data)


def test_a_ref_to_nothing_is_one_line(root: Path, run: Run) -> None:
    for command in ("info", "verify"):
        code, out, err = run("store", command, "nothing", "--root", str(root))
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "nothing: names nothing in" in err


def test_a_whole_store_verifies(store: Path, run: Run) -> None:
    code, out, err = run("store", "verify", str(store))
    shards = len(list_commit_paths(store))
    assert (code, err) == (0, "")
    files = len(stores.files(store))
    assert out == f"{store}: good; {files} files, {shards} of {shards} shards\n"


def test_verify_has_a_line_for_each_finding(store: Path, run: Run) -> None:
    stores.flip(store / "acts/L0/c.0.0")
    (store / "tokens/c.0").unlink()
    stores.truncate(store / "index.parquet")
    code, out, err = run("store", "verify", str(store))
    assert code == 1
    assert out.splitlines() == [
        "acts/L0/c.0.0 (shard 0, acts/L0): changed",
        "index.parquet: truncated",
        "tokens/c.0: missing",
    ]
    assert err == (
        f"latentqa: store {store}: 3 of its files are damaged. "
        "Run the experiment again: it recomputes only the affected shards.\n"
    )


def test_verify_prints_one_json_document(store: Path, run: Run) -> None:
    commit_path(store, 0).write_text("{}")
    (store / "left").write_text("x")
    code, out, _ = run("store", "verify", str(store), "--json")
    found = json.loads(out)
    assert code == 1
    assert found["finished"] is True
    assert found["damaged"] == [
        {"file": "commits/000000.json", "fault": "changed", "shard": 0, "array": None},
        {"file": "left", "fault": "extra", "shard": None, "array": None},
    ]


def test_verify_of_a_dump_under_way_says_so(store: Path, run: Run) -> None:
    stores.uncommit(store, 0)
    code, out, _ = run("store", "verify", str(store))
    assert code == 0
    assert "good so far, the dump has not finished" in out


def test_info_of_a_damaged_store_names_the_file(store: Path, run: Run) -> None:
    write_json(store / "plan.json", {"layers": [0]})
    code, _, err = run("store", "info", str(store))
    assert code == 1
    assert "plan.json: its content does not match its checksum" in err


def test_find_says_where_an_example_lies(store: Path, run: Run) -> None:
    example, placed = next(iter(ActivationStore(store).index.items()))
    code, out, _ = run("store", "find", str(store), example)
    assert code == 0
    assert f"row_start {placed.row_start}  n_tokens {placed.n_tokens}" in out
    assert run("store", "find", str(store), "nobody")[0] == 2


@pytest.mark.parametrize("format_", ["safetensors", "datasets"])
def test_a_layer_goes_out_and_vectors_come_in(
    format_: str, store: Path, model: ModelFiles, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    words = ("--layer", "2", "--out", str(out), "--format", format_)
    code, text, _ = run("store", "export", str(store), *words)
    assert code == 0
    assert f"{out}: layer 2 of 12 examples" in text
    if format_ == "safetensors":
        target = ("--layer", "2", "--target", str(model.source), "--out", str(tmp_path / "in"))
        assert run("store", "import", str(out), *target)[0] == 0
        assert run("store", "verify", str(tmp_path / "in"))[0] == 0
        assert "imported: its vectors were not" in run("store", "info", str(tmp_path / "in"))[1]


def test_options_of_export_and_import_are_checked(
    store: Path, model: ModelFiles, tmp_path: Path, run: Run
) -> None:
    out = ("--out", str(tmp_path / "x"))
    code, _, err = run("store", "export", str(store), "--format", "csv", *out)
    assert (code, "is not one of 'safetensors', 'datasets'" in err) == (2, True)
    code, _, err = run("store", "export", str(store), "--format", "datasets", *out)
    assert (code, "say which one to read" in err) == (2, True)
    target = ("--target", str(model.source), *out)
    code, _, err = run("store", "import", str(tmp_path), "--layer", "9", *target)
    assert (code, "it has blocks 0 to 3, got 9. Change --layer" in err) == (2, True)
    code, _, err = run("store", "import", "v.npy", "--layer", "1", *target)
    assert (code, "--index: missing" in err) == (2, True)
