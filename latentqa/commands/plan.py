"""`latentqa plan` and `latentqa status`: what a run would do, and how far one is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from latentqa.commands.options import (
    DEFAULT_ROOT,
    ConfigFile,
    JsonOption,
    RootOption,
    SetOption,
    SmokeOption,
    UntilOption,
    duration,
    print_json,
    size,
)

if TYPE_CHECKING:
    from pipelines.running.plan import StepEstimate


def plan(
    config: ConfigFile,
    root: RootOption = DEFAULT_ROOT,
    set_: SetOption = [],  # noqa: B006 - typer's default, never changed
    until: UntilOption = None,
    smoke: SmokeOption = False,
    sample: Annotated[
        bool,
        typer.Option("--sample", help="Run the target on 16 rows to tell a packed store's size."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say for each step whether it is a hit or a miss and why, and what it would take."""
    from pipelines.running.plan import SHOWN, make_plan
    from pipelines.running.request import RunRequest

    request = RunRequest(
        config=str(config), root=str(root), overrides=set_, until=until, smoke=smoke
    )
    runner = request.open()
    steps = make_plan(runner, sampled=sample)
    if as_json:
        print_json(
            {
                "experiment": runner.experiment.experiment,
                "root": str(runner.root.path),
                "steps": [step.to_json() for step in steps],
            }
        )
        return
    for step in steps:
        key = (step.key or "")[:16]
        typer.echo(f"{step.step:<14} {key:<16}  {step.status:<8} {step.why}")
        if step.nearest and step.changes:
            typer.echo(f"{'':<16}against {step.nearest}:")
            for change in step.changes[:SHOWN]:
                typer.echo(f"{'':<18}{change}")
            if len(step.changes) > SHOWN:
                typer.echo(f"{'':<18}and {len(step.changes) - SHOWN} fields more")
        if step.status != "hit":
            typer.echo(f"{'':<16}{_estimate(step.estimate)}")
            if step.estimate.raw_bytes is not None:
                sizes = _size(step.estimate.raw_bytes, step.estimate.lossless_bytes)
                typer.echo(f"{'':<16}{sizes}")


def status(
    config: ConfigFile,
    root: RootOption = DEFAULT_ROOT,
    set_: SetOption = [],  # noqa: B006 - typer's default, never changed
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say for each step whether it is complete, how far it is, who is at it, and until when."""
    from pipelines.running.request import RunRequest
    from pipelines.running.status import status_of

    request = RunRequest(config=str(config), root=str(root), overrides=set_, smoke=smoke)
    runner = request.open()
    steps = status_of(runner)
    if as_json:
        print_json(
            {
                "experiment": runner.experiment.experiment,
                "root": str(runner.root.path),
                "steps": [step.to_json() for step in steps],
            }
        )
        return
    for step in steps:
        words = [f"{step.step:<14} {(step.key or '')[:16]:<16}  {step.state:<9}"]
        if step.progress:
            words.append("{done} of {total} {note}".format(**step.progress).rstrip())
        if step.seconds_left is not None:
            words.append(f"about {duration(step.seconds_left)} left")
        if step.holder:
            words.append(str(step.holder))
        typer.echo("  ".join(words).rstrip())


def _estimate(estimate: StepEstimate) -> str:
    if estimate.seconds is None or estimate.bytes is None:
        return "what it takes cannot be told: this experiment has not run it in this root"
    bought = ""
    if estimate.requests:
        price = "at no known price" if estimate.money is None else f"$ {estimate.money:.2f}"
        bought = f"{estimate.requests} LLM requests, {estimate.tokens} tokens, {price}, "
    return (
        f"takes {bought}about {duration(estimate.seconds)} and {size(estimate.bytes)}, "
        f"as {estimate.like} did"
    )


def _size(raw_bytes: int, lossless_bytes: int | None) -> str:
    raw = f"{size(raw_bytes)} of raw shards"
    if lossless_bytes is None:
        return raw
    return f"{raw}, about {size(lossless_bytes)} with dump.codec lossless"
