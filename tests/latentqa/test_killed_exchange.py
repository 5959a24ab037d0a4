"""Publish, export and import under SIGKILL: what they write is whole, or nothing stands there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import chain
import pytest
import stores
import tiny
from conversation_lines import line, write
from file_changes import count_changes, run_and_die
from published_files import published

from activation_store.model_files.files import resolve_model
from latentqa.cli import main
from pipelines.artifacts.cache_key import StepIdentity
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

KILLS = 6
"""Places at which each command is killed, spread over its changes of the file system."""
COMMANDS = [
    ("data", "import", "files"),
    ("data", "import", "own.jsonl", "--format", "conversations"),
    ("data", "export", "tables", "--format", "latentqa"),
    ("data", "export", "tables", "--format", "jsonl"),
    ("data", "export", "tables", "--format", "parquet"),
    ("data", "export", "tables", "--format", "datasets"),
    ("store", "export", "store", "--layer", "2", "--format", "safetensors"),
    ("store", "export", "store", "--layer", "2", "--format", "datasets"),
    ("store", "import", "layer", "--layer", "2", "--target", "model"),
    ("publish", "toy", "--root", "root"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make files, a store, exports of both, and a decoder in an artifact root."""
    folder = tmp_path_factory.mktemp("sources")
    published(folder / "files")
    write(folder / "own.jsonl", line(), line(label="ferry"))
    model = resolve_model(str(tiny.save(folder / "model")))
    rows = stores.table(folder / "rows", stores.conversations(2))
    stores.fill(rows, folder / "store", model)
    made = chain.make(folder / "chain", chain.rows_of(splits={"train": 2}))
    chain.decoder(made).save(folder / "decoder")
    root = ArtifactRoot(folder / "root")
    identity = StepIdentity(
        kind="train", version=1, config={}, inputs={}, external=chain.model().digests()
    )
    data = root.begin(identity).data
    for file in (folder / "decoder").iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    where = {"model": chain.model().ref, "adapter": None}
    record = {"counts": {"rows": 2}, "locations": where, "created": "2026-01-01"}
    Refs(root).publish("toy", [root.commit(identity, record)])
    call("data", "import", "files", "--out", "tables")(folder)
    call("store", "export", "store", "--layer", "2", "--format", "safetensors", "--out", "layer")(
        folder
    )
    return folder


def call(*words: str) -> Callable[[Path], None]:
    """Return what runs a command in a folder."""

    def run(folder: Path) -> None:
        before = os.getcwd()
        os.chdir(folder)
        try:
            with pytest.raises(SystemExit) as done:
                main(words)
        finally:
            os.chdir(before)
        assert done.value.code == 0, words

    return run


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_killed_command_leaves_nothing_half_written(
    words: tuple[str, ...], sources: Path, tmp_path: Path
) -> None:
    def to(place: str) -> Callable[[], None]:
        return lambda: call(*words, "--out", str(tmp_path / place / "out"))(sources)

    for place in ("whole", "counted", "killed"):
        (tmp_path / place).mkdir()
    to("whole")()
    expected = contents(tmp_path / "whole/out")
    changes = count_changes(tmp_path / "counted", to("counted"))
    out = tmp_path / "killed/out"
    for kill in range(KILLS):
        assert run_and_die(
            tmp_path / "killed", 1 + kill * (changes - 1) // (KILLS - 1), to("killed")
        )
        if out.exists():
            assert comparable(contents(out)) == comparable(expected)
            break
    else:
        to("killed")()
    assert comparable(contents(out)) == comparable(expected)
    assert os.listdir(tmp_path / "killed") == ["out"]


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_killed_before_any_change_is_made_good_by_the_next(
    words: tuple[str, ...], sources: Path, tmp_path: Path
) -> None:
    def to(place: str) -> Callable[[], None]:
        (tmp_path / place).mkdir(exist_ok=True)
        return lambda: call(*words, "--out", str(tmp_path / place / "out"))(sources)

    to("whole")()
    expected = comparable(contents(tmp_path / "whole/out"))
    for kill in range(1, 1 + count_changes(tmp_path / "counted", to("counted"))):
        own = f"killed-{kill}"
        assert run_and_die(tmp_path / own, kill, to(own))
        if not (tmp_path / own / "out").exists():
            to(own)()
        assert comparable(contents(tmp_path / own / "out")) == expected, kill
        assert os.listdir(tmp_path / own) == ["out"], kill


def comparable(files: dict[str, bytes]) -> dict[str, object]:
    """Take out what differs from one undisturbed run to the next."""
    found: dict[str, object] = dict(files)
    for name, data in files.items():
        if name.endswith("state.json"):
            found[name] = {**json.loads(data), "_fingerprint": None}
    return found
