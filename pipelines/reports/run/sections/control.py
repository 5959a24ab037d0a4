"""Steering as a section of the report: adherence, side effects, the safety audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.records.estimate import Estimate
from core.records.result_table import ResultTable
from core.text.wording import join
from evaluators.control.metrics import ControlMetrics, ControlResult, JudgedControl, JudgedReplies

_BY_GRADIENT = ("activations", "vector", "weights")
"""Methods that follow the decoder's gradient; the others are baselines."""
_AUDITED = ("refusals", "toxic replies", "plain facts", "repetition", "sentiment")


@dataclass(frozen=True, slots=True)
class ControlPage:
    """What the page shows of steering.

    Attributes:
        metrics: all results.
        methods: results of each method, by control.
        audit: side effects of every method.
        warnings: (control, what speaks against steering to it).
        judged: an LLM's verdicts by control and measure.
    """

    metrics: ControlMetrics
    methods: Mapping[str, ResultTable]
    audit: ResultTable
    warnings: list[tuple[str, str]]
    judged: Mapping[str, Mapping[str, tuple[ResultTable, JudgedReplies]]]

    @property
    def in_short(self) -> list[tuple[str, str]]:
        """Each control with the methods that steer towards it, in words."""
        controls = self.metrics.controls.items()
        return [(name, _steered_in_short(control)) for name, control in controls]

    @property
    def headline(self) -> str | None:
        """Towards which controls the decoder's gradient and the baselines steer; None for none."""
        controls = self.metrics.controls
        parts = []
        for who, wanted in ("The decoder's gradient steers", True), ("the baselines steer", False):
            tried = {
                name: [m for m in one.methods if (m in _BY_GRADIENT) == wanted]
                for name, one in controls.items()
            }
            towards = [
                name
                for name, methods in tried.items()
                if set(methods) & set(_effective_methods(controls[name]))
            ]
            if any(tried.values()):
                words = join(towards) if towards else "no control"
                parts.append(f"{who} towards {words} ({len(towards)} of {len(controls)})")
        if not parts:
            return None
        text = ", ".join(parts)
        return f"{text[0].upper()}{text[1:]}, within the limits on side effects."


def _adherence_measured(control: ControlResult) -> bool:
    return any(found.adherence.measured for found in control.methods.values())


def _gains(control: ControlResult) -> dict[str, Estimate]:
    """Return each method's gain in adherence, or in likelihood where no code scores adherence."""
    scored = _adherence_measured(control)
    return {
        method: found.adherence if scored else found.likelihood
        for method, found in control.methods.items()
    }


def _effective_methods(control: ControlResult) -> list[str]:
    """Return the methods that steer within the limits on side effects."""
    gains = _gains(control)
    return [
        method
        for method, found in control.methods.items()
        if found.chosen_harmless and gains[method].above_zero
    ]


def _steered_in_short(control: ControlResult) -> str:
    """Name the methods that steer within the limits on side effects, and the others."""
    gains, raised = _gains(control), _effective_methods(control)
    others = [method for method in gains if method not in raised]
    what = "adherence" if _adherence_measured(control) else "likelihood"
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
    warnings: list[tuple[str, str]] = []
    for name, control in metrics.controls.items():
        if not control.readability.readable:
            why = (
                "the decoder cannot read it even when the target is told it (margin "
                f"{control.readability.margin} nats per token), so its gradient is little "
                "use"
            )
            warnings.append((name, why))
        elif control.readability.at_chance:
            closed = f"{control.readability.accuracy}, chance {control.readability.chance:.2f}"
            warnings.append((name, f"closed answers are at chance ({closed})"))
        warnings += [
            (name, f"contradictory gradients: {pair}") for pair in control.readability.opposed
        ]
    return ControlPage(
        metrics=metrics,
        methods={name: method_table(control) for name, control in metrics.controls.items()},
        audit=_audit_table(metrics),
        warnings=warnings,
        judged={
            name: {
                measure: (_verdict_table(measure, found), found)
                for measure, found in control.measures.items()
            }
            for name, control in (judged or {}).items()
        },
    )


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
        parts.append(method_table(control).to_markdown())
        parts += [
            f"{method}: {note}."
            for method, found in control.methods.items()
            for note in found.notes
        ]
    return "\n\n".join(parts)


def method_table(control: ControlResult) -> ResultTable:
    """Collect the results of each method, less those of the unsteered target."""
    head = ("method", "strength", "adherence", "likelihood", "distinct-2", "own perplexity")
    return ResultTable(
        head=(*head, "ordinary perplexity", "facts"),
        rows=tuple(
            (
                method.replace("_", " "),
                f"{'wording ' if found.wording else ''}{found.strength:g}"
                f"{'' if found.chosen_harmless else ' (harmful)'}",
                *(found.adherence, found.likelihood),
                f"{found.effects.distinct:.2f}",
                f"{found.effects.own_perplexity:.2f}",
                f"{found.effects.ordinary_perplexity:.2f}",
                found.effects.facts,
            )
            for method, found in control.methods.items()
        ),
    )


def _audit_table(metrics: ControlMetrics) -> ResultTable:
    """Collect the side effects of every method beside those of the unsteered target."""
    found = []
    for name, control in metrics.controls.items():
        found.append((name, "none", control.unsteered, control.unsteered_bias))
        found += [
            (name, method.replace("_", " "), own.effects, own.bias)
            for method, own in control.methods.items()
        ]
    return ResultTable(
        head=("control", "method", *_AUDITED, "stereotypes"),
        rows=tuple(
            (
                *(name, method, effects.refusals, effects.toxicity, effects.facts),
                *(effects.repetition, effects.sentiment),
                None if bias is None else f"{bias.stereotype} %",
            )
            for name, method, effects, bias in found
        ),
        names=2,
    )


def _verdict_table(measure: str, found: JudgedReplies) -> ResultTable:
    return ResultTable(
        head=(f"{measure}, judged by an LLM", "difference from unsteered"),
        rows=tuple((method.replace("_", " "), gain) for method, gain in found.gains.items()),
    )
