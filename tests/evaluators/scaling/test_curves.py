"""Scaling curves over evaluations: shared questions, intervals, and the size held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DataError
from evaluators.control.result_files import REPLIES, REPLIES_FILE
from evaluators.measure.result_files import (
    ITEMS,
    ITEMS_FILE,
    LOSSES,
    LOSSES_FILE,
    write_table,
)
from evaluators.scaling.curves import SweptRun, point_rows, scaling_curves
from evaluators.scaling.shared_values import read_shared_values
from evaluators.tasks.result_files import TASK_ANSWERS, TASK_ANSWERS_FILE

CONTROLS = 12


def evaluation(
    folder: Path,
    level: float,
    *,
    controls: int = CONTROLS,
    examples: str = "e",
    options: tuple[str, ...] = ("a", "b"),
    correct: float = 1.0,
) -> Path:
    """Write an evaluation whose losses lie around `level`, with a hidden gain of 0.5."""
    folder.mkdir(parents=True)
    spread = np.random.default_rng(7).normal(0, 0.3, controls)
    losses: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for control in range(controls):
        about = {
            "split": "test",
            "view": "system",
            "kind": "persona",
            "category": "sea",
            "type": "description",
            "control_id": f"c{control:02}",
            "example_id": f"{examples}{control}",
            "question": "Who?",
        }
        for condition, more in (("right", 0.0), ("swapped", 0.5), ("other", 0.7)):
            loss = level + spread[control] + more
            losses.append({**about, "condition": condition, "loss": loss, "control_effect": None})
        items.append(
            {
                **about,
                "condition": "right",
                "options": list(options),
                "losses": [0.0] * len(options),
                "correct": correct,
            }
        )
    write_table(folder / LOSSES_FILE, losses, LOSSES)
    write_table(folder / ITEMS_FILE, items, ITEMS)
    return folder


def runs(tmp_path: Path, levels: dict[int, list[float]], **more: Any) -> list[SweptRun]:
    """Make a run for each level: of each size, one a seed."""
    return [
        SweptRun(
            label=f"rows={size} {seed=}",
            ref=f"r{size}-{seed}",
            setting={"rows": size},
            sizes={"rows": float(size)},
            seed=seed,
            data=evaluation(tmp_path / f"{size}-{seed}", level, **more),
        )
        for size, found in levels.items()
        for seed, level in enumerate(found)
    ]


def law(size: int) -> float:
    return float(4 * size**-0.4)


SIZES = (10, 20, 40, 80)


def test_the_largest_size_is_predicted_from_the_others(tmp_path: Path) -> None:
    found = scaling_curves(
        runs(tmp_path, {n: [law(n) + 0.01, law(n) - 0.01] for n in SIZES}), held_out=True
    )
    loss = next(curve for curve in found if curve.metric.name == "right")
    assert loss.fit is not None
    assert loss.held_out is not None
    assert loss.held_out.size == 80
    assert loss.held_out.inside is True
    assert loss.held_out.difference.low is not None
    assert [point.seeds for point in loss.points] == [2, 2, 2, 2]
    assert {curve.metric.name for curve in found} == {"right", "hidden_gain", "identified"}


def test_a_size_off_the_law_is_outside(tmp_path: Path) -> None:
    levels = {n: [law(n) - 0.01, law(n) + 0.01] for n in SIZES[:3]} | {80: [2.5, 2.51]}
    loss = scaling_curves(runs(tmp_path, levels), held_out=True)[0]
    assert loss.held_out is not None
    assert loss.held_out.inside is False
    assert loss.held_out.difference.excludes_zero


def test_nothing_is_held_out_where_it_was_not_asked_for(tmp_path: Path) -> None:
    loss = scaling_curves(runs(tmp_path, {n: [law(n)] for n in SIZES}), held_out=False)[0]
    assert loss.fit is not None
    assert loss.held_out is None


def test_two_sizes_have_no_fit(tmp_path: Path) -> None:
    loss = scaling_curves(runs(tmp_path, {10: [2.0], 20: [1.5]}), held_out=True)[0]
    assert (loss.fit, loss.held_out) == (None, None)


def test_few_controls_give_no_interval_and_no_verdict(tmp_path: Path) -> None:
    loss = scaling_curves(runs(tmp_path, {n: [law(n)] for n in SIZES}, controls=3), held_out=True)[
        0
    ]
    assert loss.points[0].estimate.low is None
    assert loss.held_out is not None
    assert loss.held_out.inside is None


def test_a_setting_with_a_failed_seed_is_kept(tmp_path: Path) -> None:
    levels = {n: [law(n), law(n) + 0.1] for n in SIZES[:3]} | {80: [law(80)]}
    loss = scaling_curves(runs(tmp_path, levels), held_out=True)[0]
    assert [point.seeds for point in loss.points] == [2, 2, 2, 1]
    assert loss.held_out is not None


def test_only_questions_that_all_were_asked_count(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path / "few", 1.0, controls=5),
        evaluation(tmp_path / "many", 2.0, controls=9),
    ]
    (found,) = read_shared_values(folders)
    assert found.controls == tuple(f"c{i:02}" for i in range(5))
    assert found.values["right"].shape == (2, 5)
    assert found.values["hidden_gain"] == pytest.approx(0.5)


def test_completions_of_another_target_are_the_same_questions(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path / "one", 1.0, examples="a"),
        evaluation(tmp_path / "other", 2.0, examples="b", options=("a", "c"), correct=0.0),
    ]
    (found,) = read_shared_values(folders)
    assert found.questions == CONTROLS
    # options are drawn for each example
    assert found.values["identified"].tolist() == [[1.0] * CONTROLS, [0.0] * CONTROLS]


def test_items_with_other_options_are_not_compared(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path / "one", 1.0),
        evaluation(tmp_path / "other", 2.0, options=("a", "c")),
    ]
    assert "identified" not in read_shared_values(folders)[0].values


def test_evaluations_of_other_data_are_refused(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / "one", 1.0), evaluation(tmp_path / "none", 1.0, controls=0)]
    with pytest.raises(DataError, match="2 evaluations have no question in common"):
        read_shared_values(folders)


def task_answers(folder: Path, right: float, predictor: str = "lit") -> Path:
    """Write the answers of a task with options about twelve subjects."""
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys(TASK_ANSWERS.names),
            "task": "capitals",
            "predictor": predictor,
            "row_id": f"r{subject}",
            "group": f"s{subject:02}",
            "contained": 0.0,
            "chosen": right,
        }
        for subject in range(CONTROLS)
    ]
    write_table(folder / TASK_ANSWERS_FILE, rows, TASK_ANSWERS)
    return folder


def test_reading_tasks_are_drawn_where_all_points_have_them(tmp_path: Path) -> None:
    two = runs(tmp_path, {10: [2.0], 20: [1.0]})
    with_tasks = [replace(run, tasks=task_answers(run.data, float(k))) for k, run in enumerate(two)]
    found = scaling_curves(with_tasks, held_out=True)
    (tasks,) = [curve for curve in found if curve.metric.name == "task_accuracy"]
    assert [point.estimate.estimate for point in tasks.points] == [0.0, 1.0]
    assert (tasks.view, tasks.controls) == ("capitals", CONTROLS)
    one = [with_tasks[0], two[1]]
    assert "task_accuracy" not in {c.metric.name for c in scaling_curves(one, held_out=True)}


def steered_replies(folder: Path, gain: float, score: float | None) -> Path:
    """Write replies to twelve prompts, steered one way, that keep to the control by `gain`."""
    rows = [
        {
            "control": "cheerful",
            "method": method,
            "strength": 1.0,
            "prompt": f"p{prompt:02}",
            "reply": "Yes.",
            "adherence": None if score is None else score + own,
            "likelihood": own,
        }
        for method, own in (("none", 5.0), ("weights", 5.0 + gain))
        for prompt in range(CONTROLS)
    ]
    write_table(folder / REPLIES_FILE, rows, REPLIES)
    return folder


def test_adherence_is_drawn_where_all_points_were_steered(tmp_path: Path) -> None:
    two = runs(tmp_path, {10: [2.0], 20: [1.0]})
    steered = [
        replace(run, control=steered_replies(run.data, float(k), 7.0)) for k, run in enumerate(two)
    ]
    found = {curve.metric.name: curve for curve in scaling_curves(steered, held_out=True)}
    for name in ("adherence", "adherence_likelihood"):
        assert [point.estimate.estimate for point in found[name].points] == [0.0, 1.0]
        assert (found[name].view, found[name].controls) == ("cheerful by weights", CONTROLS)


def test_adherence_by_code_is_left_out_where_code_cannot_tell(tmp_path: Path) -> None:
    two = runs(tmp_path, {10: [2.0], 20: [1.0]})
    steered = [replace(run, control=steered_replies(run.data, 1.0, None)) for run in two]
    names = {curve.metric.name for curve in scaling_curves(steered, held_out=True)}
    assert "adherence_likelihood" in names
    assert "adherence" not in names


def test_every_training_has_its_rows(tmp_path: Path) -> None:
    rows = list(point_rows(runs(tmp_path, {10: [1.0, 2.0], 20: [3.0]})))
    assert [(row["run"], row["metric"]) for row in rows][:3] == [
        ("r10-0", "right"),
        ("r10-1", "right"),
        ("r20-0", "right"),
    ]
    assert len(rows) == 9
