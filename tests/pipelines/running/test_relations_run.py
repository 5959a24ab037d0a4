"""experiments/relations.yaml from files to a task, on the target that is written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import reading_model
from ask_calls import Called

import latentqa
from core.records.table_files import CONVERSATIONS_FILE, read_conversations

TASKS = {"min_subjects": 2, "layers": [2], "predictors": ["lit", "none"], "bootstrap": 200}
EXPERIMENT = Path(__file__).parents[3] / "experiments" / "relations.yaml"


def test_a_decoder_of_subjects_is_tested_on_other_subjects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relation = reading_model.write_relation(tmp_path / "number.json")
    changes = {
        "generate.conversations.kinds.relation.source": str(relation),
        "dump.model": reading_model.model().ref,
        "dump.layers": [2],
        "train.max_steps": 1,
        "train.evaluations": 1,
        "runtime": {"device": "cpu", "threads": 1},
    }
    overrides = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    run = latentqa.run(EXPERIMENT, root=tmp_path / "root", overrides=overrides, until="train")
    folders = {step.step.name: step.artifact.data for step in run.steps}
    rows = read_conversations(folders["conversations"] / CONVERSATIONS_FILE)
    splits = {row.provenance["facts"]["subject"].casefold(): row.split for row in rows}
    words = [f"tasks.{name}={json.dumps(value)}" for name, value in TASKS.items()]
    words = ["relations", "--task", str(relation), *(w for one in words for w in ("--set", one))]
    called = Called(capsys, tmp_path / "root", *words, "--json", command="evaluate")
    assert called.code == 0, called.err
    data = Path(json.loads(called.out)["path"]) / "data"
    answers = pq.read_table(data / "task_answers.parquet").to_pylist()
    assert {splits[row["group"]] for row in answers} == {"test"}
    assert len({row["group"] for row in answers}) == list(splits.values()).count("test")
