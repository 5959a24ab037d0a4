"""examples/probe_controls.py: a linear probe of what hidden controls set."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stores import conversation

from core.records.tables import Conversation, Split

EXAMPLE = Path(__file__).parents[1] / "examples" / "probe_controls.py"
PERSONAS = ["pirate", "knight", "chef"]


def _rows() -> tuple[list[Conversation], list[str]]:
    """12 controls, each with six training rows and two of a judged split; a persona of each."""
    rows, labels = [], []
    for control in range(12):
        judged: Split = "test" if control % 2 else "test_seen"
        for number in range(8):
            split: Split = "train" if number < 6 else judged
            row = conversation(8 * control + number, "system")
            rows.append(replace(row, control_id=f"c{control}", split=split))
            labels.append(PERSONAS[control % 3])
    return rows, labels


@pytest.mark.parametrize(("told", "least", "most"), [(9.0, 1.0, 1.0), (0.0, 0.0, 0.7)])
def test_a_probe_finds_what_activations_carry(told: float, least: float, most: float) -> None:
    probe = runpy.run_path(str(EXAMPLE))["probe"]
    rows, labels = _rows()
    rng = np.random.default_rng(0)
    means_RD = rng.normal(size=(len(rows), 8))
    means_RD[:, :3] += told * np.array([[name == own for name in PERSONAS] for own in labels])

    for found in probe(rows, means_RD, labels):
        assert least <= float(found.split()[1]) <= most
        assert found.endswith("n 6")
