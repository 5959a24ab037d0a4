"""The panel's intervals at full counts: how often they hold the truth."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import SCENES, coverage

DATASETS = 2000
SAMPLES = 2000
WITHIN = {12: (0.90, 0.97), 50: (0.93, 0.97)}
"""Controls to the share of intervals that may hold the true gain."""


@pytest.mark.prove
@pytest.mark.parametrize("controls", WITHIN)
def test_coverage(proved: dict[str, Any], controls: int) -> None:
    """Over 2,000 simulated datasets the 95 % interval holds the true gain as often as it says"""
    proved["controls"] = controls
    proved["datasets of each scene, bootstrap samples, seed"] = f"{DATASETS}, {SAMPLES}, 0"
    found = {
        (scene, name): share
        for scene in SCENES
        for name, share in coverage(
            scene, controls, datasets=DATASETS, samples=SAMPLES, seed=0
        ).items()
    }
    for (scene, name), share in found.items():
        proved[f"{name}, {scene}"] = f"{100 * share:.1f} %"
    low, high = WITHIN[controls]
    assert all(low <= share <= high for share in found.values()), found
