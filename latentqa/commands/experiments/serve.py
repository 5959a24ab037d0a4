"""`latentqa serve` and `fire`: versions of an experiment by the clock, or one now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigError
from latentqa.terminal.options import (
    DEFAULT_ROOT,
    ConfigArgument,
    JsonOption,
    RootOption,
    SetOption,
    SharedRootOption,
)
from latentqa.terminal.printing import print_json, say
from latentqa.terminal.version_view import verdict


def serve(
    config: ConfigArgument,
    cron: Annotated[
        str,
        typer.Option(
            "--cron",
            metavar="TIME",
            help="Minute, hour, day, month, weekday: '0 3 * * *' is daily at 3:00.",
        ),
    ],
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone",
            metavar="ZONE",
            help="Time zone of --cron, such as Europe/Berlin; UTC if not given.",
        ),
    ] = None,
    set_: SetOption = [],  # noqa: B006 - typer's default, never changed
    root: SharedRootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Make new versions of an experiment on a schedule, until stopped.

    The file's section `schedule` says how versions differ and when one becomes `latest`. Needs a
    Prefect server (PREFECT_API_URL), which keeps the schedule and shows the runs.
    """
    from pipelines.artifacts.root import ArtifactRoot
    from pipelines.experiment.config import load_experiment
    from pipelines.running.prefect_settings import configured_api_url
    from pipelines.versions.firing import check_schedule

    experiment = load_experiment(Path(config), set_)
    check_schedule(experiment)
    place = {
        "config": str(Path(config).expanduser().resolve()),
        "root": str(ArtifactRoot(root.expanduser()).path),
    }
    import flows

    due = flows.next_firings(cron, timezone)
    if not configured_api_url():
        raise ConfigError(
            "serve: no Prefect server is configured, expected one that keeps the schedule. "
            "Start it with `prefect server start` and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    if as_json:
        deployment = f"latentqa-schedule/{experiment.experiment}"
        times = [time.isoformat() for time in due]
        print_json({"deployment": deployment, "cron": cron, "next": times, **place})
    else:
        say(f"{config}: the next version on {due[0]:%A, %d %B %Y, %H:%M %Z}; Ctrl-C ends it.")
    flows.serve(**place, overrides=set_, cron=cron, timezone=timezone)


def fire(
    config: ConfigArgument,
    set_: SetOption = [],  # noqa: B006 - typer's default, never changed
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Make the next version of an experiment now, as its section `schedule` says, and gate it.

    The exit code is 1 if the gate refuses the version; the last good one then stays `latest`.
    """
    from pipelines.artifacts.root import ArtifactRoot
    from pipelines.experiment.config import load_experiment
    from pipelines.running.request import command_line
    from pipelines.versions.firing import fire as make_version

    fired = make_version(
        load_experiment(Path(config), set_),
        ArtifactRoot(root.expanduser()),
        command=command_line("fire", config, overrides=set_),
    )
    assert fired.firing is not None, "a firing that a person starts is never skipped"
    if as_json:
        print_json({**fired.firing.to_json(), "page": fired.page})
    else:
        for check in fired.firing.checks:
            say(f"{'passed' if check['passed'] else 'FAILED':<8}{check['name']}: {check['detail']}")
        say(verdict(fired.firing))
        say(f"Page:  {fired.page}")
    if fired.firing.state == "refused":
        raise typer.Exit(1)
