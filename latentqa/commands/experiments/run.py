"""`latentqa run`, `plan` and `status`: run an experiment, plan a run, say how far one is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.text.wording import duration, size
from latentqa.terminal.option_groups import RunOptions, takes_groups
from latentqa.terminal.options import JsonOption, root_words
from latentqa.terminal.printing import print_json, say

if TYPE_CHECKING:
    from pipelines.running.plan import StepEstimate, StepPlan
    from pipelines.running.runner import Runner
    from pipelines.running.status import StepStatus


@takes_groups
def run(*, options: RunOptions, as_json: JsonOption = False) -> None:
    """Run an experiment: reuse cached steps, compute missing ones, write a report."""
    from latentqa.api import run as run_experiment
    from pipelines.running.summary import summary

    result = run_experiment(
        options.config,
        root=options.root,
        overrides=options.set_,
        until=options.until,
        smoke=options.smoke,
    )
    if as_json:
        print_json(result.to_json())
    else:
        say(summary(result, root_words(options.root)))


@takes_groups
def plan(
    *,
    options: RunOptions,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="Run the target on 16 rows to estimate a compressed store's size."
        ),
    ] = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Estimate the memory of dump, train and evaluate from the model's "
            "config, and propose settings that fit this machine's device.",
        ),
    ] = False,
    device_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Do the same for a device of this size, such as 80GB or 40GiB."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show for each step whether it is a cache hit or miss, why, and what it would cost."""
    from pipelines.running import memory_plan
    from pipelines.running.device_use import find_devices
    from pipelines.running.plan import plan_run

    size_given = None if device_memory is None else memory_plan.parse_bytes(device_memory)
    runner = options.request.open()
    steps = plan_run(runner, sampled=sample)
    found, devices = None, ""
    if memory or size_given is not None:
        devices = find_devices(runner.experiment.runtime)
        device = memory_plan.device_memory() if size_given is None else size_given
        found = memory_plan.plan_memory(runner.experiment, runner.outside.model, device)
    if as_json:
        more = {} if found is None else {"memory": found.to_json(), "devices": devices}
        print_json({**_document(runner, steps), **more})
        return
    for step in steps:
        _print_plan(step)
    if any(step.status != "hit" and step.estimate.seconds is None for step in steps):
        say(
            "What a step takes is told by this experiment's earlier runs in this root; where it "
            "had none, begin with `latentqa run CONFIG --smoke`."
        )
    if found is not None:
        for line in (*memory_plan.describe_memory(found), f"  devices      {devices}"):
            say(line)


@takes_groups
def status(*, options: RunOptions, as_json: JsonOption = False) -> None:
    """Show for each step whether it is complete, its progress, who runs it, and the time left.

    Where the experiment's schedule has fired, the steps are those of the newest firing.
    """
    from pipelines.running.status import status_of

    runner, firing, line = options.request.open(), None, ""
    if runner.experiment.schedule is not None:
        from latentqa.terminal.version_view import firing_line
        from pipelines.versions.firing import newest_firing

        if (newest := newest_firing(runner)) is not None:
            firing, runner, who = newest
            line = firing_line(firing, who)
    steps = status_of(runner)
    if as_json:
        more = {} if firing is None else {"firing": firing.to_json()}
        print_json({**_document(runner, steps), **more})
        return
    if line:
        say(line)
    for step in steps:
        _print_status(step)


def _document(runner: Runner, steps: Sequence[StepPlan | StepStatus]) -> dict[str, Any]:
    return {
        "experiment": runner.experiment.experiment,
        "root": str(runner.root.path),
        "steps": [step.to_json() for step in steps],
    }


def _print_plan(step: StepPlan) -> None:
    from pipelines.running.plan import SHOWN

    say(f"{step.step:<14} {(step.key or '')[:16]:<16}  {step.status:<8} {step.why}")
    if step.nearest and step.changes:
        say(f"{'':<16}against {step.nearest}:")
        for change in step.changes[:SHOWN]:
            say(f"{'':<18}{change}")
        if len(step.changes) > SHOWN:
            say(f"{'':<18}and {len(step.changes) - SHOWN} fields more")
    if step.status != "hit":
        estimate = step.estimate
        if words := _cost_words(estimate):
            say(f"{'':<16}{words}")
        if estimate.raw_bytes is not None:
            say(f"{'':<16}{_store_words(estimate.raw_bytes, estimate.lossless_bytes)}")


def _print_status(step: StepStatus) -> None:
    words = [f"{step.step:<14} {(step.key or '')[:16]:<16}  {step.state:<9}"]
    if step.progress:
        words.append("{done} of {total} {note}".format(**step.progress).rstrip())
    if step.seconds_left is not None:
        words.append(f"about {duration(step.seconds_left)} left")
    if step.holder:
        words.append(str(step.holder))
    say("  ".join(words).rstrip())


def _cost_words(estimate: StepEstimate) -> str:
    if estimate.seconds is None or estimate.bytes is None:
        return ""
    bought = ""
    if estimate.requests:
        price = "at no known price" if estimate.money is None else f"$ {estimate.money:.2f}"
        bought = f"{estimate.requests} LLM requests, {estimate.tokens} tokens, {price}, "
    return (
        f"takes {bought}about {duration(estimate.seconds)} and {size(estimate.bytes)}, "
        f"as {estimate.like} did"
    )


def _store_words(raw_bytes: int, lossless_bytes: int | None) -> str:
    raw = f"{size(raw_bytes)} of raw shards"
    if lossless_bytes is None:
        return raw
    return f"{raw}, about {size(lossless_bytes)} with dump.codec lossless"
