"""Vectors out of a store and into one: safetensors, `datasets`, numpy, memmap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mutations import ImportedVectors
from safetensors.torch import load_file, save_file

from activation_store.exchange.exporting import export_layer
from activation_store.exchange.importing import VectorImport, import_vectors
from activation_store.exchange.vector_sources import (
    VectorSource,
    check_declared,
    open_memmap,
    open_safetensors,
)
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.read.verify import verify
from activation_store.target.load import Shape, model_shape
from core.errors import DataError, StorageError, StoreError

CHECKOUT = Path(__file__).parents[3]


def test_the_example_needs_zarr_and_numpy_alone(whole: Path) -> None:
    store = ActivationStore(whole)
    example, placed = list(store.index.items())[5]
    place = [str(placed.row_start), str(placed.n_tokens)]
    script = CHECKOUT / "examples" / "open_store.py"
    done = subprocess.run(
        [sys.executable, str(script), str(whole), "2", *place],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"tokens {store.tokens(example).tolist()}" in done.stdout
    assert f"activations ({placed.n_tokens}, 32) float32" in done.stdout
    assert str(store.read(example, 2)[:3, :4]) in done.stdout
    imported = [x for x in script.read_text().splitlines() if x.startswith(("import", "from"))]
    assert imported == ["import sys", "import numpy as np", "import zarr"]


def test_safetensors_have_the_stores_own_bits(whole: Path, tmp_path: Path) -> None:
    store = ActivationStore(whole)
    counts = export_layer(store, 2, tmp_path / "out", format="safetensors")
    assert counts.examples == len(store.index)
    table = pq.read_table(tmp_path / "out" / "examples.parquet").to_pylist()
    for row in table[::4]:
        found = load_file(tmp_path / "out" / row["file"])[row["example_id"]]
        assert found.dtype == torch.bfloat16
        assert np.array_equal(found.float().numpy(), store.read(row["example_id"], 2))
        assert row["tokens"] == store.tokens(row["example_id"]).tolist()


def test_datasets_load_from_disk(whole: Path, tmp_path: Path) -> None:
    from datasets import load_from_disk

    store = ActivationStore(whole)
    export_layer(store, 0, tmp_path / "out", format="datasets")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    found = load_from_disk(str(tmp_path / "out")).with_format("numpy")
    assert list(found["example_id"][:]) == list(store.index)
    row = found[7]
    assert np.array_equal(row["activations"], store.read(row["example_id"], 0))


def test_nothing_is_written_over(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(StorageError, match="expected a new or empty folder"):
        export_layer(ActivationStore(whole), 0, tmp_path, format="safetensors")
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize("codec", ["raw", "lossless"])
def test_what_was_exported_comes_in_again(
    codec: str, whole: Path, model: ModelFiles, tmp_path: Path
) -> None:
    before = ActivationStore(whole)
    export_layer(before, 2, tmp_path / "out", format="safetensors")
    source = open_safetensors(tmp_path / "out")
    config = VectorImport(layer=2, codec=codec, shard_rows=512)
    counts = import_vectors(source, tmp_path / "in", config=config, target=model.digests())
    store = ActivationStore(tmp_path / "in")
    assert counts.shards == store.plan["n_shards"] == before.plan["n_shards"]
    assert store.layers == (2,)
    store.check_target(model.digests())
    for example, placed in before.index.items():
        assert np.array_equal(store.bits(example, 2), before.bits(example, 2))
        assert np.array_equal(store.tokens(example), before.tokens(example))
        assert np.array_equal(store.segments(example), before.segments(example))
        assert store.index[example].withheld == placed.withheld
    verdict = verify(tmp_path / "in")
    assert verdict.finished
    assert verdict.damaged == ()


def memmap(folder: Path, values: np.ndarray, lengths: list[int]) -> tuple[Path, Path]:
    """Return a .npy file and its table of examples."""
    np.save(folder / "v.npy", values)
    starts = np.cumsum([0, *lengths[:-1]])
    ids = [f"e{i}" for i in range(len(lengths))]
    table = pa.table({"example_id": ids, "row_start": starts, "n_tokens": lengths})
    pq.write_table(table, folder / "i.parquet")
    return folder / "v.npy", folder / "i.parquet"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_memmap_comes_in(dtype: type, tmp_path: Path) -> None:
    values: np.ndarray[Any, Any] = np.random.default_rng(0).normal(size=(60, 8)).astype(dtype)
    source = open_memmap(*memmap(tmp_path, values, [10, 20, 30]))
    import_vectors(source, tmp_path / "in", config=VectorImport(layer=1), target={"weights": "w"})
    store = ActivationStore(tmp_path / "in")
    assert np.array_equal(store.bits("e1", 1), values[10:30])
    assert not store.tokens("e1").any()


def test_the_bits_of_bfloat16_come_in_from_a_memmap(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 0x7F80, size=(30, 8)).astype(np.uint16)
    files = memmap(tmp_path, bits, [10, 20])
    with pytest.raises(DataError, match=r"it is uint16 \[30, 8\]; expected float32 or float16"):
        open_memmap(*files)
    source = open_memmap(*files, bfloat16=True)
    import_vectors(source, tmp_path / "in", config=VectorImport(layer=1), target={})
    assert np.array_equal(ActivationStore(tmp_path / "in").bits("e1", 1), bits[10:])


def test_other_byte_orders_and_categories_of_pandas_come_in(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 8)).astype(">f4")
    vectors, index = memmap(tmp_path, values, [10, 20])
    table = pq.read_table(index)
    ids = table["example_id"].dictionary_encode()
    pq.write_table(table.set_column(0, "example_id", ids), index)
    source = open_memmap(vectors, index)
    import_vectors(source, tmp_path / "in", config=VectorImport(layer=1), target={})
    assert np.array_equal(ActivationStore(tmp_path / "in").bits("e1", 1), values[10:])


def test_rows_beyond_the_file_are_refused(tmp_path: Path) -> None:
    files = memmap(tmp_path, np.zeros((20, 8), np.float32), [10, 20])
    with pytest.raises(DataError, match=r"example e1 has rows 10 to 30, and v.npy has 20"):
        open_memmap(*files)


def test_vectors_that_are_not_finite_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    values = np.zeros((20, 8), np.float32)
    values[15, 3] = np.nan
    source = open_memmap(*memmap(tmp_path, values, [10, 10]))
    with pytest.raises(StoreError, match="an activation of example e1 is not finite"):
        import_vectors(source, tmp_path / "in", config=VectorImport(layer=1), target={})
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([{"a": (3, 4)}, {"a": (3, 4)}], "example a is in an earlier file as well"),
        ([{"a": (3, 4), "b": (3, 5)}], r"example b has shape \[3, 5\], example a \[3, 4\]"),
        ([{"a": (3,)}], r"example a has shape \[3\]"),
        ([], "no .safetensors file is here"),
    ],
)
def test_safetensors_that_do_not_fit_are_refused(
    tensors: list[Any], words: str, tmp_path: Path
) -> None:
    for i, shapes in enumerate(tensors):
        named = {name: torch.zeros(shape) for name, shape in shapes.items()}
        save_file(named, tmp_path / f"{i}.safetensors")
    with pytest.raises(DataError, match=words):
        open_safetensors(tmp_path)


def test_numbers_of_several_kinds_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 4), "b": torch.zeros(2, 4).half()}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="its tensors are F16, F32; expected all of one of"):
        open_safetensors(tmp_path)


SHAPE = Shape(ref="tiny", n_blocks=4, d_model=8, max_positions=100, vocabulary=300)


def exported(whole: Path, folder: Path, **changes: object) -> VectorSource:
    """Layer 2 of a store as an export, with changes to its layer.json."""
    export_layer(ActivationStore(whole), 2, folder, format="safetensors")
    about = json.loads((folder / "layer.json").read_text())
    (folder / "layer.json").write_text(json.dumps({**about, **changes}))
    return open_safetensors(folder)


def test_what_layer_json_says_is_compared(whole: Path, model: ModelFiles, tmp_path: Path) -> None:
    shape, target = model_shape(model), model.digests()
    source = exported(whole, tmp_path / "x")
    check_declared(source, layer=2, shape=shape, target=target)
    with pytest.raises(DataError, match=r"layer.json: layer is 2, and --layer 1"):
        check_declared(source, layer=1, shape=shape, target=target)
    other = {**target, "weights": "0" * 64}
    with pytest.raises(DataError, match=r"the vectors are of another target than .*: weights is"):
        check_declared(source, layer=2, shape=shape, target=other)
    longer = exported(whole, tmp_path / "y", tokens=7)
    with pytest.raises(DataError, match=r"tokens is 7, and the vectors have \d+"):
        check_declared(longer, layer=2, shape=shape, target=target)
    with pytest.raises(DataError, match="d_model 32, and tiny has 8"):
        check_declared(source, layer=2, shape=SHAPE, target=target)


def test_tokens_that_the_target_does_not_know_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((3, 8), np.float32))
    table = {"example_id": ["a"], "row_start": [0], "n_tokens": [3], "tokens": [[1, 300, 2]]}
    pq.write_table(pa.table(table), tmp_path / "i.parquet")
    source = open_memmap(tmp_path / "v.npy", tmp_path / "i.parquet")
    with pytest.raises(DataError, match="token id 300, and tiny knows 300 tokens"):
        check_declared(source, layer=1, shape=SHAPE, target={})


def test_what_layer_json_says_is_known_by_name_and_type(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown field 'model'; an export writes d_model, dtype"):
        exported(whole, tmp_path / "x", model="Qwen/Qwen2")
    source = exported(whole, tmp_path / "y", layer="2")
    shape = Shape(ref="tiny", n_blocks=4, d_model=32, max_positions=100, vocabulary=320)
    with pytest.raises(DataError, match=r"layer is '2', and --layer 2"):
        check_declared(source, layer=2, shape=shape, target={})


@pytest.mark.parametrize("content", ["{", "[]", '{"target": "llama"}'])
def test_a_layer_json_that_is_none_is_refused(content: str, whole: Path, tmp_path: Path) -> None:
    exported(whole, tmp_path / "x")
    (tmp_path / "x" / "layer.json").write_text(content)
    with pytest.raises(DataError, match=r"layer.json: not"):
        open_safetensors(tmp_path / "x")


def test_rows_of_two_examples_that_overlap_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((30, 8), np.float32))
    table = {"example_id": ["a", "b"], "row_start": [0, 9], "n_tokens": [10, 10]}
    pq.write_table(pa.table(table), tmp_path / "i.parquet")
    with pytest.raises(DataError, match=r"a and b overlap: one ends at row 10, .* begins at 9"):
        open_memmap(tmp_path / "v.npy", tmp_path / "i.parquet")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("tokens", [[1, 2, -3]], "a token id is negative or above 32 bits"),
        ("tokens", [[1, 2, 2**40]], "a token id is negative or above 32 bits"),
        ("tokens", [[1, 2]], "3 vectors, 2 tokens and 3 segments"),
        ("tokens", [[1.5, 2.0, 3.0]], r"tokens are float64 \[3\]; expected a list of integers"),
        ("segments", [[0.9, 1.0, 1.0]], "segments are float64"),
        ("segments", [["control"] * 3], "segments are <U7"),
        ("tokens", [[1, None, 3]], "tokens are object"),
        ("tokens", [[[1], [2], [3]]], r"tokens are int64 \[3, 1\]; expected a list"),
        ("withheld", [True], "withheld is True; expected 0 to 3"),
        ("example_id", [""], "an example_id is empty"),
        ("segments", [[0, 1, 9]], r"segment 9; expected one of 0 \(template\)"),
        ("withheld", [4], "withheld is 4; expected 0 to 3"),
        ("withheld", [-1], "withheld is -1; expected 0 to 3"),
        ("row_start", [0.5], "column row_start is double; expected integers"),
        ("example_id", [None], "column example_id is null; expected text"),
    ],
)
def test_a_column_that_does_not_fit_is_one_line(
    column: str, value: list[object], words: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", np.zeros((3, 8), np.float32))
    table = {"example_id": ["a"], "row_start": [0], "n_tokens": [3], column: value}
    pq.write_table(pa.table(table), tmp_path / "i.parquet")
    with pytest.raises(DataError, match=words):
        open_memmap(tmp_path / "v.npy", tmp_path / "i.parquet")


def test_a_table_without_an_example_is_one_line(tmp_path: Path) -> None:
    vectors, index = memmap(tmp_path, np.zeros((3, 8), np.float32), [3])
    pq.write_table(pq.read_table(index).slice(0, 0), index)
    with pytest.raises(DataError, match="has no example"):
        open_memmap(vectors, index)


def test_what_other_systems_leave_beside_tensors_is_not_read(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 8)}, tmp_path / "v.safetensors")
    (tmp_path / "._v.safetensors").write_bytes(b"left")
    assert list(open_safetensors(tmp_path).rows.lengths) == [3]


def test_a_mutated_file_of_vectors_is_a_store_or_one_line(tmp_path: Path) -> None:
    vectors = ImportedVectors(tmp_path)
    # `make prove` goes through thousands; 247: a header of numpy that is no Python
    for seed in (247, *range(30)):
        vectors.check(seed)
