"""`latentqa evaluate`: reading tasks on a trained decoder, as an artifact that is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import reading_model
from ask_calls import Called, commit
from reading_model import SUBJECTS

from core.errors import DataError, RefError
from core.runtime import Runtime
from evaluators.config import Baseline
from evaluators.tasks import relation_task, tasks
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.metrics import MEAN, TasksMetrics
from evaluators.tasks.predictors import PREDICTORS
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.running.task_run import run_tasks_of
from trainers.config import LOG_FILE

pytestmark = pytest.mark.usefixtures("unrendered")

SETTINGS = {
    "min_subjects": 4,
    "layers": [1],
    "shares": {"train": 0.3, "validation": 0.2},
    "bootstrap": 200,
}
OVERRIDES = [f"tasks.{name}={json.dumps(value)}" for name, value in SETTINGS.items()]
OVERRIDES += ["runtime.device=cpu", "runtime.threads=1"]


@pytest.fixture(scope="module")
def relation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reading_model.write_relation(tmp_path_factory.mktemp("relations") / "number.json")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    (folder / "decoder").mkdir()
    reading_model.decoder().save(folder / "decoder")
    place = ArtifactRoot(folder / "root")
    made = commit(place, "train", folder / "decoder", model=reading_model.model().ref)
    Refs(place).publish("toy", [made])
    return place.path


def words(relation: Path) -> list[str]:
    return ["toy", "--task", str(relation), *(w for one in OVERRIDES for w in ("--set", one))]


def test_the_command_prints_tables_and_is_found_again(
    root: Path, relation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = Called(capsys, root, *words(relation), command="evaluate")
    assert called.code == 0, called.err
    assert "| task | n | lit | probe |" in called.out
    assert "| number | 10 | 1.00" in called.out
    assert "rows are not here: subjects of the test may be among them." in called.out
    again = Called(capsys, root, *words(relation), "--json", command="evaluate")
    document = json.loads(again.out)
    assert document["name"] == "toy_tasks:1"
    assert document["tasks"]["number"]["predictors"]["none"]["chosen"]["estimate"] == 0.25
    assert "hit" in again.err
    shown = Called(capsys, root, "toy_tasks", command="results")
    assert "| number | 10 | 1.00" in " ".join(shown.out.split())
    data = Path(document["path"]) / "data"
    answers = pq.read_table(data / "task_answers.parquet").to_pylist()
    # prior and visible_text were not trained, and a relation has nothing to swap
    assert len(answers) == 10 * (len(PREDICTORS) - 3)
    numbers = {row["metric"]: row for row in pq.read_table(data / "results.parquet").to_pylist()}
    assert numbers["number.lit.contained"]["estimate"] == 1.0
    assert numbers["number.probe.by_layer.1"]["n"] == 10


def test_numbers_of_several_decoders_are_rows_of_one_file(
    root: Path, relation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Refs(ArtifactRoot(root)).tag("toy", "twin")
    path = tmp_path / "rows.parquet"
    called = Called(
        capsys, root, "twin", *words(relation), "--rows", str(path), "--json", command="evaluate"
    )
    assert [one["name"] for one in json.loads(called.out)] == ["twin_tasks:1", "toy_tasks:1"]
    rows = pq.read_table(path).to_pylist()
    shares = {
        row["run"]: row["estimate"] for row in rows if row["metric"] == "number.lit.contained"
    }
    assert shares == {"twin": 1.0, "toy": 1.0}


def test_a_ref_without_a_decoder_is_refused(root: Path, relation: Path, tmp_path: Path) -> None:
    place = ArtifactRoot(root)
    (tmp_path / "a.txt").write_text("a")
    made = commit(place, "dump", tmp_path)
    with pytest.raises(RefError, match="expected a trained decoder"):
        run_tasks_of(made.short, [str(relation)], root=root)


def test_hidden_prompts_need_conversations(root: Path) -> None:
    with pytest.raises(RefError, match="expected conversations as well"):
        run_tasks_of("toy", [], prompts=True, root=root)


def run_two(
    folder: Path, relations: dict[str, Path], *baselines: Baseline, **more: object
) -> TasksMetrics:
    """Run LIT and `none` on relations, with a decoder whose training had two checkpoints.

    The adapters of baselines are the decoder's own, and change nothing.
    """
    decoder = folder / "decoder"
    if not decoder.is_dir():
        decoder.mkdir()
        reading_model.decoder().save(decoder)
        lines: list[dict[str, Any]] = [{"step": 5, "loss": 1.0}]
        lines += [{"step": step, "validation": {"right": 1.0}} for step in (0, 4, 8)]
        (decoder / LOG_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (folder / "out").mkdir()
    inputs = tasks.TaskInputs(
        model=reading_model.model(),
        decoder=decoder,
        baselines=dict.fromkeys(baselines, decoder),
        relations=relations,
    )
    config = TasksConfig.model_validate({**SETTINGS, "predictors": ["lit", "none"], **more})
    runtime = Runtime(device="cpu", threads=1)
    return tasks.run_tasks(inputs, folder / "out", folder, config=config, runtime=runtime)


def test_methods_that_have_answered_are_not_run_again(
    relation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_two(tmp_path, {"number": relation})
    monkeypatch.delattr(tasks, "run_predictor")
    monkeypatch.delattr(relation_task, "find_known")
    assert run_two(tmp_path, {"number": relation}) == first


def test_checkpoints_of_the_training_are_tries_of_lit(relation: Path, tmp_path: Path) -> None:
    found = run_two(tmp_path, {"number": relation}).tasks["number"].predictors
    assert (found["lit"].checkpoints, found["lit"].tried) == (2, 2 * len(found["lit"].tries))
    assert found["none"].tried == len(found["none"].tries)


def test_baselines_see_the_word_alone_and_nothing(relation: Path, tmp_path: Path) -> None:
    names: list[Baseline] = ["visible_text", "prior"]
    found = run_two(tmp_path, {"number": relation}, *names, predictors=names).tasks["number"]
    word, nothing = (found.predictors[name] for name in names)
    # the target looks a subject up by its token, which is what stands there
    assert (word.written.estimate, word.chosen.estimate) == (1.0, 1.0)
    assert (nothing.written.estimate, nothing.chosen.estimate) == (0.0, 0.25)


def test_several_relations_have_their_mean_beside_them(relation: Path, tmp_path: Path) -> None:
    wrong = reading_model.write_relation(tmp_path / "other.json", SUBJECTS[:12])
    found = run_two(tmp_path, {"number": relation, "other": wrong}).tasks
    assert list(found) == ["number", "other", MEAN]
    assert found[MEAN].predictors["lit"].written.estimate == 1.0
    assert MEAN not in run_two(tmp_path, {"number": relation}).tasks


def test_two_tasks_of_one_name_are_refused(relation: Path, tmp_path: Path) -> None:
    other = reading_model.write_relation(tmp_path / "number_direct.json")
    with pytest.raises(DataError, match="two tasks are called number_direct; rename the file"):
        run_two(tmp_path, {"number": relation, "number_direct": other}, grades=["direct"])


def test_a_file_that_cannot_be_used_is_one_line_and_code_2(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.tsv"
    path.write_text("thing\tanswer\nJapan\tYen\n")
    called = Called(capsys, root, "toy", "--task", str(path), command="evaluate")
    assert called.code == 2
    (line,) = called.err.strip().splitlines()[-1:]
    assert f"{path}: row 1 has no subject or subj; it has thing, answer." in line
    assert "Traceback" not in called.err
