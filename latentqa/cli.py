"""The command `latentqa`. Heavy packages are imported inside the commands that need them."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import typer

from core.errors import LatentQAError
from core.text.redact import redact
from core.text.terminal import terminal_text
from latentqa.commands.asking import ask, control, map, steer
from latentqa.commands.comparison import compare, crossed, results
from latentqa.commands.experiments import evaluate, init, run, serve, setup, sweep
from latentqa.commands.stored import artifacts, data, publish, show, store

TRACEBACK = "--traceback"
INTERRUPTED = 130
"""Exit code on Ctrl-C; typer returns it."""
_PLACE_ERRORS = frozenset(
    (
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    )
)
"""Of the operating system, about a place that a user named."""

app = typer.Typer(
    name="latentqa",
    help="Ask a language model's hidden activations open questions.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"latentqa {metadata.version('latentqa')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    traceback_: Annotated[
        bool,
        typer.Option(
            TRACEBACK, help="Print the traceback of an error; may stand anywhere on the line."
        ),
    ] = False,
) -> None:
    """Ask a language model's hidden activations open questions."""


_PANELS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Run experiments": {
        "init": init.init,
        "schema": init.schema,
        "run": run.run,
        "plan": run.plan,
        "status": run.status,
        "sweep": sweep.sweep,
        "serve": serve.serve,
        "fire": serve.fire,
        "setup": setup.app,
    },
    "Use a decoder": {
        "ask": ask.ask,
        "map": map.map_,
        "steer": steer.steer,
        "control": control.app,
        "publish": publish.publish,
    },
    "Read and compare results": {
        "show": show.show,
        "results": results.results,
        "compare": compare.compare,
        "diff": artifacts.diff,
        "crossed": crossed.crossed,
        "evaluate": evaluate.evaluate,
    },
    "Rows, stores and artifacts": {
        "data": data.app,
        "store": store.app,
        "ls": artifacts.ls,
        "tag": artifacts.tag,
        "untag": artifacts.untag,
        "gc": artifacts.gc,
        "verify": artifacts.verify,
    },
}
"""Every command, in the order and under the headings of `latentqa --help`."""

for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit: 0, 2 on a user's error, 1 on any other, 130 on Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_TerminalFormatter())
    shown = TRACEBACK in words
    words = [word for word in words if word != TRACEBACK] or ["--help"]
    try:
        with _kept_from_gc(words):
            code = app(args=words, prog_name="latentqa", standalone_mode=False)
    except typer.TyperException as error:
        if shown:
            _print_traceback()
        # a family of commands without one has printed its help and has no more to say
        if text := " ".join(error.format_message().replace("Value error, ", "").split()):
            context = getattr(error, "ctx", None)  # an error of usage knows its command
            where = context.command_path if context else "latentqa"
            print(f"latentqa: {terminal_text(text)} ({where} --help)", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if shown:
            _print_traceback()
        sys.exit(_print_error(error, shown))
    if code == INTERRUPTED:
        print("Stopped. Finished work is kept; run again to go on.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _kept_from_gc(words: Sequence[str]) -> Iterator[None]:
    """Keep garbage collection away from every artifact root in which a command is given a path."""
    from pipelines.artifacts.root import kept_from_gc, roots_around

    # one collects, the other runs until it is stopped
    named = [] if words[0] in ("gc", "serve") else words
    with contextlib.ExitStack() as held:
        for root in roots_around(part for word in named for part in re.split(r"[=+]", word)):
            held.enter_context(kept_from_gc(root))
        yield


class _TerminalFormatter(logging.Formatter):
    """Format warnings, which may tell of names and settings from elsewhere, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal_text(super().format(record))


def _print_traceback() -> None:
    """Print the traceback of the error that is handled, without credentials."""
    print(terminal_text(redact(traceback.format_exc())), end="", file=sys.stderr)


def _print_error(error: Exception, shown: bool) -> int:
    """Print `error` as one line on stderr, safe for a terminal; returns the exit code."""
    text = terminal_text(redact(" ".join(str(error).split())))
    if isinstance(error, LatentQAError):
        print(f"latentqa: {text}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError) and error.filename and error.errno in _PLACE_ERRORS:
        where = error.filename2 or error.filename  # of a rename, the new place
        line = terminal_text(f"{where}: {error.strerror}. Name another place.")
        print(f"latentqa: {line}", file=sys.stderr)
        return 2
    hint = "" if shown else f" ({TRACEBACK} shows the rest)"
    print(f"latentqa: {type(error).__name__}: {text}{hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
