"""Programs in processes of their own that start at once.

A start of Python with torch or Prefect takes seconds. Here one process imports what they need, and
forks itself for each program: a fork has a session, a folder and an environment of its own, can be
signalled and killed, and exits as any other. An import that a program would have to do without, or
a setting that is read on import, is only in the environment of the first: who tests those starts
Python anew.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Forked:
    """One program.

    Attributes:
        server: that forked it.
        pid: of the process, which leads a process group.
        out: file of what it prints.
        err: file of what it says on stderr.
    """

    server: ForkServer
    pid: int
    out: Path
    err: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self.server.tell({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the end, and return the exit code."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError(f"{self.err.read_text()}\nruns for more than {timeout} s")
            time.sleep(0.02)
        return code

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process and those of its group, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, how)
        self.wait(280)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end, and return what it printed on stdout and stderr."""
        self.wait(timeout)
        return self.out.read_text(), self.err.read_text()

    def first_line(self, timeout: float, word: str = "") -> str:
        """Wait for a line on stderr that begins with `word`, and return the text up to its end."""
        until = time.monotonic() + timeout
        while time.monotonic() < until and self.poll() is None:
            lines = self.err.read_text().splitlines(keepends=True)
            for number, line in enumerate(lines, 1):
                if line.startswith(word) and line.endswith("\n"):
                    return "".join(lines[:number])
            time.sleep(0.02)
        raise AssertionError(f"no line {word!r}, exit code {self.poll()}: {self.err.read_text()}")


class ForkServer:
    """The process that forks; see `fork_server`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._started: list[Forked] = []

    def tell(self, request: Mapping[str, Any]) -> Any:
        """Send a request, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, *words: str, cwd: Path, env: Mapping[str, str]) -> Forked:
        """Start `python WORD...`: a script, `-m module` or `-c code`, and its arguments."""
        number = len(self._started)
        out, err = (self._folder / f"{number}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        places = {"cwd": str(cwd), "out": str(out), "err": str(err)}
        pid = self.tell({"words": words, "env": dict(env), **places})
        self._started.append(Forked(server=self, pid=pid, out=out, err=err))
        return self._started[-1]

    def end(self) -> None:
        """Kill the programs that a failed test has left running."""
        for left in self._started:
            if left.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(left.pid, signal.SIGKILL)


@contextlib.contextmanager
def fork_server(folder: Path, env: Mapping[str, str], *modules: str) -> Iterator[ForkServer]:
    """Yield a process that has imported `modules` in the environment `env`.

    Args:
        folder: for what the programs print; made if need be.
        env: environment of the imports.
        modules: that are imported once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, __file__, *modules],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server = ForkServer(process, folder)
    try:
        yield server
    finally:
        server.end()
        process.kill()
        process.communicate()


def _serve() -> None:
    """Import the modules that are named, then fork and poll as stdin asks, until that ends."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    assert threading.active_count() == 1, "threads do not survive a fork"
    gc.freeze()  # a collection in a fork would copy all that was imported
    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            _answer(answers, os.waitstatus_to_exitcode(status) if pid else None)
        elif os.fork() == 0:
            os.setsid()
            # the tests may be a background job of a shell, and such a job's children ignore Ctrl-C
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _answer(answers, os.getpid())
            os.close(answers)
            _become(request)
            return


def _answer(answers: int, value: int | None) -> None:
    os.write(answers, (json.dumps(value) + "\n").encode())


def _become(request: Mapping[str, Any]) -> None:
    """Run a program in this fork as Python itself would."""
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    first, *rest = request["words"]
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path[0] = ""
        exec(rest[0], {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        sys.path[0] = request["cwd"]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _serve()
