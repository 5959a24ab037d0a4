"""Stores and vectors that were computed elsewhere, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from command_line import Run
from conversation_lines import line, write

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Write an experiment of four own conversations and a tiny target, beside another."""
    messages = [
        [{"role": "system", "content": f"You are number {i}.", "segment": "control"},
         {"role": "user", "content": "Who are you?", "segment": "stimulus"}]
        for i in range(4)
    ]  # fmt: skip
    write(tmp_path / "own.jsonl", *[line(one) for one in messages])
    model = tiny.save(tmp_path / "model")
    tiny.save(tmp_path / "other", seed=1)
    settings = {
        "experiment": "own",
        "data": {"path": str(tmp_path / "own.jsonl"), "format": "conversations"},
        "dump": {"model": str(model), "layers": [1]},
    }
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(settings))
    return path


def dump_step(run: Run, experiment: Path, root: Path, *words: str) -> dict[str, Any]:
    """Run up to the dump; return what `run --json` says of it."""
    code, out, err = run(
        *("run", str(experiment), "--root", str(root), "--until", "dump", "--json", *words)
    )
    assert code == 0, err
    document = json.loads(out)
    step: dict[str, Any] = document["steps"][-1]
    assert step["step"] == "dump"
    return step | {"forward_tokens": document["metrics"]["store"]["forward_tokens"]}


def test_a_finished_store_is_an_experiments_store(
    run: Run, experiment: Path, tmp_path: Path
) -> None:
    made = dump_step(run, experiment, tmp_path / "first")
    assert made["forward_tokens"] > 0
    store = Path(made["path"]) / "data"
    there = ("--set", f"dump.store={store}")
    taken = dump_step(run, experiment, tmp_path / "second", *there)
    assert (taken["cached"], taken["forward_tokens"]) == (False, 0)
    assert taken["key"] != made["key"]
    # known by its root digest, not by its place
    shutil.copytree(store, tmp_path / "copied")
    moved = dump_step(
        run, experiment, tmp_path / "second", "--set", f"dump.store={tmp_path / 'copied'}"
    )
    assert (moved["cached"], moved["key"]) == (True, taken["key"])


def test_a_finished_store_of_another_target_is_refused(
    run: Run, experiment: Path, tmp_path: Path
) -> None:
    made = dump_step(run, experiment, tmp_path / "root")
    code, _, err = run(
        *("run", str(experiment), "--root", str(tmp_path / "root"), "--until", "dump"),
        *("--set", f"dump.store={made['path']}/data", "--set", f"dump.model={tmp_path / 'other'}"),
    )
    assert code == 2
    assert "weights" in err
    assert "Traceback" not in err


def test_a_damaged_finished_store_is_refused_in_one_line_and_stays(
    run: Run, experiment: Path, tmp_path: Path
) -> None:
    made = dump_step(run, experiment, tmp_path / "root")
    store = Path(made["path"]) / "data"
    there = ("run", str(experiment), "--root", str(tmp_path / "root"), "--until", "dump", "--set")
    record = store / "commits" / "000000.json"
    kept = record.read_bytes()
    record.unlink()  # root.json has it too
    assert run(*there, f"dump.store={store}")[0] == 0
    record.write_bytes(kept)
    shutil.copytree(store, tmp_path / "copied")
    for damaged in (store, tmp_path / "copied"):
        shard = damaged / "acts" / "L1" / "c.0.0"
        content = bytearray(shard.read_bytes())
        content[2000] ^= 1
        shard.unlink()  # its bytes may be those of other stores too
        shard.write_bytes(content)
        code, _, err = run(*there, f"dump.store={damaged}", "--set", "dump.max_tokens=1000")
        assert code == 2
        assert (
            "acts/L1/c.0.0 is not as it was committed. It is the store named in dump.store" in err
        )
        assert "again:" not in err
        assert shard.read_bytes() == content
    (tmp_path / "copied" / "root.json").unlink()
    code, _, err = run(*there, f"dump.store={tmp_path / 'copied'}")
    assert (code, err.count("\n")) == (2, 1)
    assert "root.json: the file is missing" in err


@pytest.mark.parametrize("withheld", [None, "all"])
def test_vectors_that_show_the_control_or_nothing_at_all_are_refused(
    withheld: str | None, run: Run, experiment: Path, tmp_path: Path
) -> None:
    made = dump_step(run, experiment, tmp_path / "root")
    layer, store = tmp_path / "layer", tmp_path / "in"
    form = ("--layer", "1", "--format", "safetensors", "--out", str(layer))
    assert run("store", "export", f"{made['path']}/data", *form)[0] == 0
    rows = pq.read_table(layer / "examples.parquet").to_pylist()
    changed = [row | {"withheld": withheld and row["n_tokens"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(changed), layer / "examples.parquet")
    of = ("--layer", "1", "--target", str(tmp_path / "model"), "--out", str(store))
    assert run("store", "import", str(layer), *of)[0] == 0
    code, _, err = run(
        *("run", str(experiment), "--root", str(tmp_path / "root"), "--until", "dump"),
        *("--set", f"dump.store={store}"),
    )
    assert code == 2
    assert "tokens are withheld from a masked decoder, and of its conversation" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("vectors.safetensors",), "not a folder, expected a folder of .safetensors files"),
        (("nowhere",), "not a folder"),
        (("layer", "--index", "i.parquet"), "--index: got it with"),
    ],
)
def test_a_source_that_is_none_is_refused_in_one_line(
    given: tuple[str, ...],
    said: str,
    run: Run,
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(experiment.parent)
    (tmp_path / "vectors.safetensors").write_bytes(b"")
    (tmp_path / "layer").mkdir()
    options = ("--layer", "1", "--target", "model", "--out", "in")
    code, _, err = run("store", "import", *given, *options)
    line = err.splitlines()[-1]  # before it are transformers' of the target that was made
    assert code == 2
    assert line.startswith("latentqa: ")
    assert said in line


@pytest.mark.parametrize(
    ("changed", "words", "said"),
    [
        ({"layer": 3}, (), "layer is 3, and --layer 1"),
        ({}, ("--layer", "2"), "layer is 1, and --layer 2"),
        ({"tokens": 7}, (), "tokens is 7, and the vectors have"),
        ({"d_model": 64}, (), "d_model is 64, and the vectors have 32"),
        ({}, ("--target", "other"), "the vectors are of another target"),
    ],
)
def test_vectors_that_contradict_the_command_are_refused_in_one_line(
    changed: dict[str, Any],
    words: tuple[str, ...],
    said: str,
    run: Run,
    experiment: Path,
    tmp_path: Path,
) -> None:
    made = dump_step(run, experiment, tmp_path / "root")
    out = tmp_path / "layer"
    form = ("--layer", "1", "--format", "safetensors", "--out", str(out))
    assert run("store", "export", f"{made['path']}/data", *form)[0] == 0
    about = json.loads((out / "layer.json").read_text())
    (out / "layer.json").write_text(json.dumps(about | changed))
    options = {"--layer": "1", "--target": str(tmp_path / "model")}
    options |= {name: str(tmp_path / value) if name == "--target" else value
                for name, value in zip(words[::2], words[1::2], strict=True)}  # fmt: skip
    flat = [word for pair in options.items() for word in pair]
    code, _, err = run("store", "import", str(out), *flat, "--out", str(tmp_path / "in"))
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not (tmp_path / "in").exists()


def test_a_setting_that_the_finished_store_has_otherwise_is_refused_or_said(
    run: Run, experiment: Path, tmp_path: Path
) -> None:
    made = dump_step(run, experiment, tmp_path / "first", "--set", "dump.store_dtype=float32")
    there = (str(experiment), "--set", f"dump.store={Path(made['path']) / 'data'}")
    root = ("--root", str(tmp_path / "second"), "--until", "dump")
    _, _, said = run("run", *there, *root)
    assert "dump.store is taken as it is: store_dtype float32." in said
    for name, value, has in (
        ("store_dtype", "bfloat16", "float32"),
        ("codec", "lossless", "raw"),
        ("chunk_rows", "16", ""),
    ):
        for command in ("plan", "run"):
            code, _, said = run(command, *there, *root, "--set", f"dump.{name}={value}")
            assert code == 2
            assert f"dump.{name}: got {value}, and the store of dump.store has {has}" in said
