"""Steering as a section of the report: adherence, side effects, the safety audit, curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.text.text_tables import CellValue, markdown
from core.text.wording import join
from evaluators.control.metrics import (
    ControlMetrics,
    ControlResult,
    JudgedControl,
    MethodResult,
    SideEffects,
)
from pipelines.reports import plots
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure

_FIGURE = "control-curves"
_OWN = ("activations", "vector", "weights")
_COLOURS = {"weights": "own", "vector": "raw", "difference": "other", "sft": "third"}


@dataclass(frozen=True, slots=True)
class AuditRow:
    """The side effects of one method beside those of the unsteered target."""

    control: str
    method: str
    effects: SideEffects
    bias: str


@dataclass(frozen=True, slots=True)
class ControlPage:
    """What the page shows of steering.

    Attributes:
        metrics: all results.
        audit: rows of the safety audit.
        warnings: (control, what speaks against steering to it).
        judged: an LLM's verdicts by control; empty where none was asked.
    """

    metrics: ControlMetrics
    audit: list[AuditRow]
    warnings: list[tuple[str, str]]
    judged: Mapping[str, JudgedControl]

    @property
    def in_short(self) -> list[tuple[str, str]]:
        """Each control with the methods that steer towards it, in words."""
        controls = self.metrics.controls.items()
        return [(name, _steered_in_short(control)) for name, control in controls]


def _steered_in_short(control: ControlResult) -> str:
    """Name the methods that steer within the limits on side effects, and the others."""
    scored = any(found.adherence.measured for found in control.methods.values())
    gains = {
        method: found.adherence if scored else found.likelihood
        for method, found in control.methods.items()
    }
    raised = [
        method
        for method, found in control.methods.items()
        if found.chosen_harmless and gains[method].above_zero
    ]
    others = [method for method in gains if method not in raised]
    what = "adherence" if scored else "likelihood"
    if not raised:
        return f"No method raises {what} within the limits on side effects ({join(others)})."
    named = join([f"{method} ({gains[method]})" for method in raised])
    does = "raises" if len(raised) == 1 else "raise"
    rest = f"; {join(others)} {'does' if len(others) == 1 else 'do'} not" if others else ""
    return f"Within the limits on side effects, {named} {does} {what}{rest}."


def control_page(
    metrics: ControlMetrics, judged: Mapping[str, JudgedControl] | None = None
) -> ControlPage:
    """Sort what was measured for a page."""
    audit: list[AuditRow] = []
    warnings: list[tuple[str, str]] = []
    for name, control in metrics.controls.items():
        audit.append(AuditRow(name, "none", control.unsteered, _bias(control, None)))
        audit += [
            AuditRow(name, method, found.effects, _bias(control, found))
            for method, found in control.methods.items()
        ]
        if not control.readability.readable:
            why = (
                "the decoder cannot read it even when the target is told it (margin "
                f"{control.readability.margin} nats per token), so its gradient is little "
                "use"
            )
            warnings.append((name, why))
        warnings += [
            (name, f"contradictory gradients: {pair}") for pair in control.readability.opposed
        ]
    return ControlPage(metrics, audit, warnings, judged or {})


def _bias(control: ControlResult, found: MethodResult | None) -> str:
    bias = control.unsteered_bias if found is None else found.bias
    return "–" if bias is None else f"{bias.stereotype} %"


def control_tables(metrics: ControlMetrics) -> str:
    """Write the results as Markdown, with 95 % intervals over test prompts."""
    parts = []
    for name, control in metrics.controls.items():
        readability = control.readability
        closed = "" if readability.accuracy is None else f"; closed {readability.accuracy}"
        parts.append(
            f"{name}: read with a margin of {readability.margin} nats a token{closed}"
            f"{'' if readability.readable else ' (cannot be read)'}"
        )
        rows = [
            [
                method,
                f"{found.strength:g}{'' if found.chosen_harmless else ' (harmful)'}",
                str(found.adherence),
                str(found.likelihood),
                f"{found.effects.distinct:.2f}",
                f"{found.effects.own_perplexity:.2f}",
                f"{found.effects.ordinary_perplexity:.2f}",
                str(found.effects.facts),
            ]
            for method, found in control.methods.items()
        ]
        head = [
            *("method", "strength", "adherence", "likelihood", "distinct-2", "own perplexity"),
            *("ordinary perplexity", "facts"),
        ]
        parts.append(markdown(head, rows))
        parts += [
            f"{method}: {note}."
            for method, found in control.methods.items()
            for note in found.notes
        ]
    return "\n\n".join(parts)


def control_figures(metrics: ControlMetrics) -> dict[str, PageFigure]:
    """Draw adherence against damage for every strength that was tried."""
    panels: list[plots.SeriesPanel] = []
    rows: list[dict[str, CellValue]] = []
    for name, control in metrics.controls.items():
        lines = []
        for method, found in control.methods.items():
            points = sorted((max(p.own_perplexity, p.ordinary_perplexity), p) for p in found.curve)
            gains = [p.likelihood if p.adherence is None else p.adherence for _, p in points]
            lines.append(
                plots.Series(
                    method,
                    tuple(min(damage, 10.0) for damage, _ in points),
                    tuple(gains),
                    _COLOURS.get(method, "plain"),
                )
            )
            rows += [
                {"control": name, "method": method, **point.model_dump()} for point in found.curve
            ]
        panels.append(plots.SeriesPanel(name, "validation", tuple(lines)))
    if not panels:
        return {}
    wide, narrow = (
        plots.lines(
            panels,
            xlabel="perplexity ratio (larger of two)",
            ylabel="adherence",
            columns=columns,
            shares=False,
        )
        for columns in (3, 1)
    )
    description = "Adherence against damage, by method and strength"
    return {_FIGURE: make_page_figure(_FIGURE, description, wide, narrow, rows)}
