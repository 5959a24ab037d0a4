"""The command `latentqa`. Heavy packages are imported inside the commands that need them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.errors import LatentQAError
from latentqa.commands import artifacts, ask, compare, data, plan, publish, setup, store
from latentqa.commands.options import (
    DEFAULT_ROOT,
    ConfigFile,
    JsonOption,
    RootOption,
    SetOption,
    SmokeOption,
    UntilOption,
    print_json,
)

TRACEBACK = "--traceback"
INTERRUPTED = 130
"""Exit code on Ctrl-C; typer returns it."""

app = typer.Typer(
    name="latentqa",
    help="Ask a language model's hidden activations open questions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    traceback_: Annotated[
        bool, typer.Option(TRACEBACK, help="Show where an error comes from; anywhere on the line.")
    ] = False,
) -> None:
    """Ask a language model's hidden activations open questions."""


@app.command()
def run(
    config: ConfigFile,
    root: RootOption = DEFAULT_ROOT,
    set_: SetOption = [],  # noqa: B006 - typer's default, never changed
    until: UntilOption = None,
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment: find what is done, make what is missing, write a report."""
    from pipelines.running.prefect_settings import configured_api_url
    from pipelines.running.request import RunRequest
    from pipelines.running.summary import summary

    request = RunRequest(
        config=str(config), root=str(root), overrides=tuple(set_), until=until, smoke=smoke
    )
    if configured_api_url():
        import flows

        result = flows.run(request)
    else:
        result = request.run()
    if as_json:
        print_json(result.to_json())
    else:
        implied = (DEFAULT_ROOT, Path(os.environ.get("LATENTQA_ROOT", DEFAULT_ROOT)))
        typer.echo(summary(result, "" if root in implied else f" --root {root}"))


app.command()(plan.plan)
app.command()(plan.status)
app.command()(ask.ask)
app.command()(artifacts.ls)
app.command()(artifacts.show)
app.command()(artifacts.diff)
app.command()(compare.compare)
app.command()(publish.publish)
app.command()(artifacts.tag)
app.command()(artifacts.gc)
app.command()(artifacts.verify)
app.add_typer(setup.app, name="setup")
app.add_typer(data.app, name="data")
app.add_typer(store.app, name="store")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit: 0, 2 on a user's error, 1 on any other, 130 on Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    shown = TRACEBACK in words
    words = [word for word in words if word != TRACEBACK] or ["--help"]
    try:
        code = app(args=words, prog_name="latentqa", standalone_mode=False)
    except typer.TyperException as error:
        if shown:
            traceback.print_exc()
        # a family of commands without one has printed its help and has no more to say
        if text := " ".join(error.format_message().split()):
            print(f"latentqa: {text} (latentqa --help)", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if shown:
            traceback.print_exc()
        sys.exit(_tell(error, shown))
    if code == INTERRUPTED:
        print("Stopped. Finished work is kept; run again to go on.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Exception, shown: bool) -> int:
    """Print `error` as one line; returns the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, LatentQAError):
        print(f"latentqa: {text}", file=sys.stderr)
        return error.exit_code
    hint = "" if shown else f" ({TRACEBACK} shows the rest)"
    print(f"latentqa: {type(error).__name__}: {text}{hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
