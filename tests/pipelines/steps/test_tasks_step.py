"""The optional step `tasks`: where it stands, what decides it, what the report shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import reading_model
from report_example import report_text

from evaluators.measure.result_files import write_table
from evaluators.tasks.metrics import MEAN, TasksMetrics
from evaluators.tasks.result_files import TASK_ANSWERS
from pipelines.experiment.config import Experiment
from pipelines.experiment.smoke import smoke
from pipelines.reports.run.sections.task_figures import task_figures
from pipelines.reports.run.sections.tasks import read_examples, task_tables
from pipelines.steps.order import steps_for
from pipelines.steps.shared.metrics import metrics_of
from pipelines.steps.shared.step import ExternalInputs, Step


def experiment(**more: Any) -> Experiment:
    return Experiment.model_validate({"experiment": "toy", "data": {"path": "x"}, **more})


def step_of(own: Experiment) -> Step:
    return next(step for step in steps_for(own) if step.name == "tasks")


def test_the_step_is_there_where_it_is_asked_for() -> None:
    assert "tasks" not in [step.name for step in steps_for(experiment())]
    own = experiment(tasks={}, evaluate={"baselines": ["prior", "text"]})
    steps = {step.name: step for step in steps_for(own)}
    assert list(steps)[-3:] == ["evaluate", "tasks", "report"]
    assert set(steps["tasks"].inputs) == {"conversations", "train", "train_prior"}
    assert steps["report"].inputs["tasks"] == "tasks"


def test_a_judge_is_a_step_of_its_own() -> None:
    own = experiment(tasks={"prompts": {}, "judge": {"answers": 3}})
    steps = {step.name: step for step in steps_for(own)}
    assert list(steps)[-3:] == ["tasks", "judge_tasks", "report"]
    assert "judge" not in steps["tasks"].config(own)
    assert steps["judge_tasks"].config(own)["answers"] == 3
    counts = {"tasks": {"tasks": example()}}
    verdicts = {"sport": {"predictors": {"probe": {"judged": leaf(0.5)}}}}
    found = metrics_of(
        {
            "tasks": {"counts": counts["tasks"]},
            "judge_tasks": {"counts": {"judged_tasks": verdicts}},
        }
    )
    assert found["tasks"]["sport"]["predictors"]["probe"]["judged"] == leaf(0.5)
    assert "judged" not in found["tasks"]["sport"]["predictors"]["lit"]
    assert "judges equivalent" in task_tables(
        TasksMetrics.model_validate({"tasks": found["tasks"]})
    )


def test_a_file_counts_by_its_bytes_and_not_by_its_place(tmp_path: Path) -> None:
    first = reading_model.write_relation(tmp_path / "number.json")
    (tmp_path / "b").mkdir()
    moved = reading_model.write_relation(tmp_path / "b" / "number.json")
    other = reading_model.write_relation(tmp_path / "b" / "other.json", B="9")
    digests = []
    for path in (first, moved, other):
        own = experiment(tasks={"relations": [str(path)]})
        assert "relations" not in step_of(own).config(own)
        digests.append(ExternalInputs(own).relation_digests)
    assert digests[0] == digests[1]
    assert digests[0]["number"] != digests[2]["other"]


def test_the_other_model_of_a_shift_counts_by_its_digests() -> None:
    ref = reading_model.model().ref
    own = experiment(tasks={"shift": {"model": ref, "layer": 1}}, dump={"model": ref})
    step = step_of(own)
    assert step.config(own)["shift"] == {"layer": 1}
    outside = ExternalInputs(own)
    assert step.external(outside)["shift"] == reading_model.model().digests()
    assert step.locations(own)["shift"] == {"model": ref, "adapter": None}


def test_a_smoke_run_asks_few_subjects() -> None:
    small = smoke(experiment(tasks={"max_subjects": 50, "prompts": {}}))
    assert small.tasks is not None
    assert small.tasks.prompts is not None
    assert small.tasks.prompts.max_controls == 4
    assert (small.tasks.max_subjects, small.tasks.min_subjects) == (4, 2)
    assert (small.tasks.max_asked, small.tasks.train_subjects) == (16, 16)


def leaf(estimate: float, n: int = 40) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1, "n": n}


def example() -> dict[str, Any]:
    def predictor(share: float, layers: dict[str, float], **more: Any) -> dict[str, Any]:
        return {
            "sees": "activations",
            "setting": {"layer": 2},
            "contained": leaf(share),
            "exact": leaf(share),
            "chosen": leaf(0.5, 8),
            "by_layer": {layer: leaf(own) for layer, own in layers.items()},
            "tries": [{"setting": {"layer": 2}, "validation": 0.5}],
            **more,
        }

    return {
        "sport": {
            "counts": {"test_known": 40},
            "choices": 32,
            "predictors": {
                "lit": predictor(0.25, {"2": 0.25}, checkpoints=6),
                "probe": predictor(0.75, {"0": 0.5, "2": 0.75}, lead=leaf(-0.5)),
            },
        },
        "sport_direct": {
            "headline": "chosen",
            "chance": 0.5,
            "counts": {},
            "choices": 20,
            "predictors": {"lit": predictor(0.625, {})},
        },
        "star": {
            "counts": {},
            "choices": 0,
            "why_not": "the target knows 3 of 20 subjects",
            "predictors": {},
        },
    }


def test_the_report_shows_the_tasks(tmp_path: Path) -> None:
    text = report_text(tmp_path, experiment(tasks={}), tasks={"tasks": example()})
    assert "sport 40 0.25 [0.15, 0.35] 0.75 [0.65, 0.85]" in text
    assert "sport 40 −0.50 [−0.60, −0.40]" in text
    assert "Not measurable: star task why star the target knows 3 of 20 subjects" in text
    assert (
        "LIT names the object in 0.25 [0.15, 0.35] of 40 cases; probe, the best other method that "
        "reads activations, in 0.75 [0.65, 0.85]." in text
    )
    assert "LIT chooses right in 0.50 [0.40, 0.60] of 20 cases." in text
    assert "sport lit activations layer 2 6 sport probe activations layer 2 1" in text
    assert "sport: fewer settings were tried for some method than for LIT." in text
    assert "probe: LIT is above it in 0 of 1, below it in 1 (sport)." in text
    assert "sport test known 40" in text
    assert 'href="#tasks"' in (tmp_path / "report.html").read_text()
    assert (tmp_path / "figures" / "tasks-layers.csv").is_file()


def test_tables_have_a_row_a_task() -> None:
    text = task_tables(TasksMetrics.model_validate({"tasks": example()}))
    assert "| sport | 40 | 0.25 [0.15, 0.35] | 0.75 [0.65, 0.85] |" in text
    assert "| sport | 32 |" in text
    assert "star: not measurable" in text
    assert "sport: fewer settings were tried for some method than for LIT." in text


def test_the_mean_stands_behind_the_relations() -> None:
    tasks = {"zebra": example()["sport"], MEAN: example()["sport"], "ant": example()["sport"]}
    text = task_tables(TasksMetrics.model_validate({"tasks": tasks})).split("\n\n")[1]
    rows = [line.split("|")[1].strip() for line in text.splitlines()[2:]]
    assert rows == ["zebra", "ant", MEAN]


def test_yes_and_no_are_no_names_of_objects() -> None:
    named, exact, *_, claims, _ = task_tables(
        TasksMetrics.model_validate({"tasks": example()})
    ).split(":\n\n")[1:]
    assert "| sport |" in named
    assert "| sport |" in exact
    assert "sport_direct" not in named + exact
    assert "| sport_direct | 40 | 0.62 [0.53, 0.72] |" in claims


def test_hidden_prompts_have_their_own_tables(tmp_path: Path) -> None:
    task = {
        "headline": "chosen",
        "counts": {},
        "choices": 12,
        "predictors": {
            "lit": {
                "sees": "activations",
                "setting": {"layer": 2},
                "similarity": leaf(0.125, 12),
                "chosen": leaf(0.75, 3),
                "by_layer": {"2": leaf(0.75, 3)},
                "tries": [],
            }
        },
    }
    text = task_tables(TasksMetrics.model_validate({"tasks": {"hidden_system_test": task}}))
    assert "name the object" not in text
    assert "| hidden_system_test | 12 | 0.25 | 0.75 [0.65, 0.85] |" in text
    rows = [
        {"task": "hidden", "predictor": "lit", "similarity": i / 20, "gold": str(i)}
        for i in range(20)
    ]
    write_table(tmp_path / "a.parquet", rows, TASK_ANSWERS)
    shown = [row["gold"] for row in read_examples(tmp_path / "a.parquet")["hidden"]]
    assert shown == ["19", "18", "17", "16", "15", "4", "3", "2", "1", "0"]


def test_the_plot_has_each_block_that_was_read() -> None:
    figure = task_figures(TasksMetrics.model_validate({"tasks": example()}))["tasks-layers"]
    lines = figure.csv.decode().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["sport", "lit", "2"],
        ["sport", "probe", "0"],
        ["sport", "probe", "2"],
    ]


def test_the_plot_has_intervals_n_and_chance() -> None:
    metrics = example()
    metrics["sport_direct"]["predictors"]["lit"]["by_layer"] = {"2": leaf(0.625)}
    wide = task_figures(TasksMetrics.model_validate({"tasks": metrics}))["tasks-layers"].svg
    metrics["sport"]["predictors"]["probe"]["by_layer"]["0"] |= {"low": None, "high": None}
    fewer = task_figures(TasksMetrics.model_validate({"tasks": metrics}))["tasks-layers"].svg
    assert wide.count("stroke-opacity: 0.6") == 4
    assert fewer.count("stroke-opacity: 0.6") == 3
    assert "block that is read (n = 40)" in wide
    # a choice's n counts its rows, and has a level of chance
    assert "block that is read (n = 20)" in wide
    assert wide.count("stroke-dasharray: 2.7,2.7") == 1
