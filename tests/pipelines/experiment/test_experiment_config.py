"""An experiment file is read, or refused in one line that says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.steps.order import steps_for

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("x.yaml")
    path.write_text("experiment: x\ndata: {path: rows}\n")
    return path


def error(file: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_fill_the_rest(file: Path) -> None:
    assert load_experiment(file) == Experiment.model_validate(
        {"experiment": "x", "data": {"path": "rows"}}
    )


@pytest.mark.parametrize("path", sorted((CHECKOUT / "experiments").glob("*.yaml")))
def test_every_published_experiment_is_valid(path: Path) -> None:
    assert load_experiment(path).experiment == path.stem


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "train.lora.rnak=3",
            "unknown field train.lora.rnak; did you mean train.lora.rank?",
        ),
        ("train.rank=3", "unknown field train.rank; did you mean train.lora.rank?"),
        (
            "train.lora.colour=3",
            "unknown field train.lora.colour; fields of train.lora: alpha, dropout, rank, targets.",
        ),
        (
            "train.lora.rank=0",
            "train.lora.rank: got 0, expected a whole number "
            "(input should be greater than or equal to 1).",
        ),
        ("train.lora.rank=x", 'train.lora.rank: got "x", expected a whole number.'),
        ('train.lora.rank="8"', 'train.lora.rank: got "8", expected a whole number.'),
        ("train.max_steps=true", "train.max_steps: got true, expected a whole number or null."),
        ("train.lora.targets=[1]", "train.lora.targets.0: got 1, expected text."),
        (
            "evaluate.splits=[tset]",
            'evaluate.splits.0: got "tset", expected one of train, validation, test, test_ood, '
            "test_seen. Did you mean test?",
        ),
        (
            "dump.compute_dtype=float8",
            'dump.compute_dtype: got "float8", expected one of auto, float32, bfloat16, float16. '
            "Did you mean float32?",
        ),
        (
            "dump.layers=[1, 1]",
            "dump.layers: got [1, 1]; expected at least one layer, and each once.",
        ),
        (
            "data.splits={test: 0.9, validation: 0.2}",
            "data.splits: validation + test leave nothing to train on; expected less than 1.",
        ),
        (
            "schedule={gate: {max_flagged: {repeated: 0.1}}}",
            'schedule.gate.max_flagged.repeated: got "repeated", expected one of ',
        ),
        (
            "schedule={gate: {max_drift: 7}}",
            "schedule.gate.max_drift: got 7, expected a number or null "
            "(input should be less than or equal to 1).",
        ),
        ("dump.layers.x=3", "dump.layers is a list, not a section; set dump.layers itself."),
        ("runtime=cpu", 'runtime: got "cpu", expected a section with device, threads, '),
        (
            "train.decoder.read_layer=2.0",
            "train.decoder.read_layer: got 2.0; expected a block number from 0, -1 for the last "
            "block, or a relative depth between 0 and 1.",
        ),
    ],
)
def test_a_wrong_override_is_one_line(file: Path, override: str, words: str) -> None:
    if override == "dump.layers.x=3":
        file.write_text(file.read_text() + "dump: {layers: [3]}\n")
    found = error(file, override)
    assert found.startswith((f"--set {override}: {words}", f"x.yaml: {words}"))


def test_a_wrong_field_in_the_file_names_the_file(file: Path) -> None:
    file.write_text("experiment: x\ndata: {path: rows}\ntrian: {}\n")
    assert error(file) == "x.yaml: unknown field trian; did you mean train?"


def test_a_missing_field_is_named(file: Path) -> None:
    file.write_text("data: {path: rows}\n")
    assert error(file) == "x.yaml: field experiment is missing; expected text."


def test_no_source_of_rows_is_refused(file: Path) -> None:
    file.write_text("experiment: x\n")
    assert error(file).startswith("x.yaml: expected exactly one of the sections data")


def test_several_stored_layers_need_the_one_that_is_read(file: Path) -> None:
    assert error(file, "dump.layers=[3, 7]") == (
        "x.yaml: train.decoder.read_layer: got null, expected one of dump.layers [3, 7]."
    )


def test_a_read_layer_is_one_of_those_stored(file: Path) -> None:
    own = ("dump.layers=[14]", "train.decoder.read_layer=3")
    assert error(file, *own) == (
        "x.yaml: train.decoder.read_layer: got 3, expected one of dump.layers [14]."
    )


def test_weights_are_shared_by_several_processes(file: Path) -> None:
    assert "runtime.sharding: got full with one process" in error(file, "runtime.sharding=full")
    both = ["runtime.sharding=full", "runtime.processes=2"]
    assert load_experiment(file, both).runtime.sharding == "full"


def test_several_read_layers_are_all_stored(file: Path) -> None:
    own = ("dump.layers=[3, 7, 14]", "train.decoder.read_layers=[3, 9]")
    assert error(file, *own) == (
        "x.yaml: train.decoder.read_layers: got [3, 9], expected some of dump.layers [3, 7, 14]."
    )
    load_experiment(file, (own[0], "train.decoder.read_layers=[14, 3]"))


def test_live_activations_have_no_dump_and_bring_its_settings(file: Path) -> None:
    experiment = load_experiment(file, ["train.activations=live", "dump.layers=[3]"])
    steps = {step.name: step for step in steps_for(experiment)}
    assert "dump" not in steps
    assert steps["train"].config(experiment)["capture"]["layers"] == [3]
    assert steps["evaluate"].config(experiment)["capture"]["layers"] == [3]
    assert "dump" not in steps["report"].inputs
    assert "dump" in {step.name for step in steps_for(load_experiment(file))}


def test_a_name_that_is_none_is_refused(file: Path) -> None:
    assert error(file, "experiment=A b").startswith('--set experiment=A b: experiment: got "A b"')


def test_an_override_without_a_value_is_refused(file: Path) -> None:
    assert error(file, "train") == ("--set train: expected FIELD=VALUE, such as train.lora.rank=8.")


def test_a_file_that_is_not_there_names_its_neighbour(file: Path) -> None:
    file.rename("mine.yaml")
    assert error(Path("mien.yaml")) == (
        "mien.yaml: no such experiment file; did you mean mine.yaml?"
    )


def test_a_list_is_no_experiment(file: Path) -> None:
    file.write_text("- a\n")
    assert error(file).startswith("x.yaml: got a list, expected a mapping of sections")


def test_an_empty_file_is_no_experiment(file: Path) -> None:
    file.write_text("")
    assert error(file).startswith("x.yaml: got nothing, expected a mapping of sections")


def test_overrides_have_yaml_types(file: Path) -> None:
    found = load_experiment(
        file,
        [
            "data.limit=8",
            "train.learning_rate=1e-4",
            "train.max_steps=null",
            "train.views=[control, system]",
            "train.decoder.masking=false",
            "train.epochs=2",
        ],
    )
    assert found.data is not None
    assert found.data.limit == 8
    assert found.train.learning_rate == 1e-4
    assert found.train.max_steps is None
    assert found.train.views == ("control", "system")
    assert found.train.decoder.masking is False
    assert found.train.epochs == 2.0


def test_an_override_wins_over_the_file_and_the_last_over_the_first(file: Path) -> None:
    file.write_text("experiment: x\ndata: {path: rows, limit: 3}\n")
    found = load_experiment(file, ["data.limit=4", "data.limit=5"])
    assert found.data is not None
    assert found.data.limit == 5
