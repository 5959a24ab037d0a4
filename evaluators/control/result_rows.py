"""Rows of steering in results.parquet: a row per number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.records.estimate import Estimate
from evaluators.control.metrics import ControlMetrics
from evaluators.measure.result_rows import WHOLE, row_without_interval

VIEW = "steered"
"""View of these rows: what the target writes itself."""


def control_rows(metrics: ControlMetrics) -> Iterator[dict[str, Any]]:
    """Yield a row for each number under `CONTROL.METHOD.MEASURE`; `none` is the target as it is.

    Args:
        metrics: what was measured.
    """
    about = {"split": "test", "view": VIEW, "foreign_target": False}
    for name, control in metrics.controls.items():
        measured: dict[str, Any] = {
            f"{name}.readability.margin": control.readability.margin,
            f"{name}.readability.accuracy": control.readability.accuracy,
            f"{name}.readability.agreement": control.readability.agreement,
        }
        of_method = {"none": (control.unsteered, control.unsteered_bias)}
        for method, found in control.methods.items():
            measured[f"{name}.{method}.adherence"] = found.adherence
            measured[f"{name}.{method}.likelihood"] = found.likelihood
            measured[f"{name}.{method}.strength"] = found.strength
            of_method[method] = (found.effects, found.bias)
        for method, (effects, bias) in of_method.items():
            for side in type(effects).model_fields:
                measured[f"{name}.{method}.{side}"] = getattr(effects, side)
            if bias is not None:
                measured[f"{name}.{method}.bias.difference"] = bias.difference
                measured[f"{name}.{method}.bias.stereotype"] = bias.stereotype
                for kind, own in bias.by_type.items():
                    for measure, value in own.items():
                        measured[f"{name}.{method}.bias.{measure}.{kind}"] = value
        for metric, value in measured.items():
            if isinstance(value, float):
                yield {**about, **row_without_interval(metric, value, metrics.prompts["test"])}
            elif isinstance(value, Estimate) and value.measured:
                note = f"{value.n} prompts, too few for an interval" if value.low is None else None
                yield {
                    **about,
                    "group": WHOLE,
                    "metric": metric,
                    **value.model_dump(),
                    "note": note,
                }
