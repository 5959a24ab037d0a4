"""Steps of steering are measured by what controls change, where a decoder knows it."""

from __future__ import annotations

import torch

from decoder.steering.geometry import Geometry

UNIT = torch.tensor([[1.0, 2.0, 0.5, 1.0]])
CHANGES = torch.diag(torch.tensor([4.0, 1.0, 0.0, 0.0]))[None]
KNOWN = Geometry(torch.zeros(1, 4), UNIT, CHANGES)


def test_the_slope_goes_where_controls_move_activations() -> None:
    gradient = torch.ones(3, 4)
    assert torch.equal(Geometry(torch.zeros(1, 4), UNIT).slope(gradient), UNIT.expand(3, 4))
    assert KNOWN.slope(gradient).tolist() == [[4.0, 2.0, 0.0, 0.0]] * 3


def test_each_layer_has_its_own_slope() -> None:
    both = Geometry(
        torch.zeros(2, 2), torch.ones(2, 2), torch.stack([torch.eye(2), torch.zeros(2, 2)])
    )
    assert both.slope(torch.ones(4, 2)).tolist() == [[1.0, 1.0]] * 2 + [[0.0, 0.0]] * 2
