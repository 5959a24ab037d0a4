"""What the planned or the kept rows cannot train or judge is known before anything is paid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from chat_templates import R1

import latentqa
from core.errors import ConfigError, DataError
from pipelines.experiment.config import load_experiment
from pipelines.running.coverage import check_plan

pytestmark = pytest.mark.usefixtures("unrendered")

LLM = {"model": "m", "base_url": "http://127.0.0.1:9", "revision": "1"}
"""An endpoint where nobody listens."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model") / "tiny")


def config(folder: Path, kinds: dict[str, Any], **sections: Any) -> Path:
    path = folder / "few.yaml"
    own = {"conversations": {"kinds": kinds}, **sections.pop("generate", {})}
    path.write_text(json.dumps({"experiment": "few", "generate": own, **sections}))
    return path


def small(folder: Path, controls: int, model: Path) -> Path:
    """Write an experiment of profiles, which need no LLM."""
    return config(
        folder,
        {"profile": {"controls": controls, "views": ["control", "system"]}},
        dump={"model": str(model), "layers": [1]},
        train={"lora": {"rank": 2}, "max_steps": 2, "precision": "float32"},
        evaluate={"conditions": ["right", "other"], "identification": 0, "answers": 0},
        runtime={"device": "cpu", "threads": 1},
    )


@pytest.mark.parametrize("controls", [1, 2])
def test_planned_controls_that_leave_none_to_judge_are_refused_before_any_request(
    controls: int, tmp_path: Path
) -> None:
    own = config(tmp_path, {"persona": {"controls": controls}}, generate={"endpoint": LLM})
    for act in (latentqa.plan, latentqa.run):
        with pytest.raises(ConfigError, match=rf"\({controls} of persona\) none is left for eval"):
            act(own, root=tmp_path / "root")


def test_a_plan_that_tests_one_control_says_that_it_can_judge_nothing(tmp_path: Path) -> None:
    said = {
        controls: check_plan(
            load_experiment(config(tmp_path, {"persona": {"controls": controls}})),
            ("train", "evaluate"),
        )
        for controls in (3, 8)
    }
    assert "so that nothing can be judged" in str(said[3])
    assert said[8] is None


@pytest.mark.parametrize(
    ("kinds", "sections", "step"),
    [
        ({"persona": {"views": ["control"]}}, {"train": {"views": ["system"]}}, "train"),
        ({"persona": {}}, {"train": {"views": ["stimulus_completion"]}}, "train"),
        ({"persona": {}}, {"evaluate": {"views": ["stimulus_completion"]}}, "evaluate"),
    ],
)
def test_views_without_planned_rows_are_refused(
    kinds: dict[str, Any], sections: dict[str, Any], step: str, tmp_path: Path
) -> None:
    own = config(tmp_path, kinds, generate={"endpoint": LLM}, **sections)
    with pytest.raises(ConfigError, match=f"none is left for {step}"):
        latentqa.plan(own, root=tmp_path / "root")


def test_rows_that_were_kept_are_looked_at_before_the_next_step(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": f"Be {i}.", "segment": "control"},
                {"role": "user", "content": "Hi", "segment": "stimulus"},
            ],
            "split": "train",
        }
        for i in range(4)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"path": "rows.jsonl", "format": "conversations", "rows": {"questions": "written"}}
    tree = {"experiment": "few", "generate": {"endpoint": LLM}}
    tree["data"] = {**data, "path": str(tmp_path / "rows.jsonl")}
    (tmp_path / "own.yaml").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="of its 4 conversations none is left for evaluate"):
        latentqa.run(tmp_path / "own.yaml", root=tmp_path / "root")


def test_replies_that_were_all_dropped_are_no_rows_of_the_next_step(tmp_path: Path) -> None:
    thinking = tiny.save(tmp_path / "thinking", template=R1)  # it never ends its thought
    own = json.loads(small(tmp_path, 8, thinking).read_text())
    views = {"views": ["stimulus_completion"]}
    own |= {"complete": {"max_tokens": 3}, "train": {**own["train"], **views}}
    own["evaluate"] |= views
    (tmp_path / "replies.yaml").write_text(json.dumps(own))
    with pytest.raises(DataError, match="of its 16 conversations none is left for train"):
        latentqa.run(tmp_path / "replies.yaml", root=tmp_path / "root")


def test_a_smoke_run_of_one_control_goes_through_every_step(tmp_path: Path, model: Path) -> None:
    done = latentqa.run(small(tmp_path, 1, model), root=tmp_path / "root", smoke=True)
    assert done.metrics["data"]["controls"] == 4
    right = done.metrics["reading"]["test"]["system"]["answer_loss"]["right"]
    assert right["n"] == 2
    assert done.report is not None


def test_two_controls_are_trained_on_without_validation(tmp_path: Path, model: Path) -> None:
    done = latentqa.run(small(tmp_path, 2, model), root=tmp_path / "root", until="train")
    counts = done.steps[-1].artifact.record["counts"]
    assert (counts["validation"], counts["untrained_validation"]) == (None, None)
    assert (counts["steps"], counts["best_step"]) == (2, 2)


def test_rows_of_visible_controls_alone_are_validated_on(tmp_path: Path, model: Path) -> None:
    own = small(tmp_path, 6, model)
    words = ["generate.conversations.kinds.profile.views=[control]"]
    done = latentqa.run(own, root=tmp_path / "root", until="train", overrides=words)
    assert done.steps[-1].artifact.record["counts"]["validation"] > 0
