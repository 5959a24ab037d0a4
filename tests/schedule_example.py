"""An experiment with a schedule whose versions take a moment: fact sheets, drawn, no model."""

from __future__ import annotations

from typing import Any

from pipelines.experiment.config import Experiment

TEXT = """
experiment: sheets
generate:
  conversations:
    kinds:
      profile: {categories: {village: 30, moons: 2}, views: [control]}
    splits: {validation: 0.1, test: 0.2}
  questions: {per_control: 2}
schedule:
  mode: grow
  by: 40
  until: questions
  gate: {max_drift: 0.3}
"""
"""What is added is half moons: the second version drifts."""


def experiment(controls: int = 12, **schedule: Any) -> Experiment:
    """Build an experiment with this schedule, which ends with the questions."""
    return Experiment.model_validate(
        {
            "experiment": "sheets",
            "generate": {
                "conversations": {
                    "kinds": {"profile": {"controls": controls, "views": ["control"]}},
                    "splits": {"validation": 0.1, "test": 0.2},
                },
                "questions": {"per_control": 2},
            },
            "schedule": {"until": "questions", **schedule},
        }
    )
