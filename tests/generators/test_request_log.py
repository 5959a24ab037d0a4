import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from generators.errors import StorageError
from generators.generate_config import SamplingConfig
from generators.llm_request import Request
from generators.request_log import RequestLog

REQUEST = Request(
    messages=(("user", "hello"),),
    schema={"type": "object"},
    name="greeting",
    max_tokens=8,
    sampling=SamplingConfig(),
)


def body(text: str) -> str:
    message = f'{{"content": "{text}"}}'
    return f'{{"choices": [{{"message": {message}, "finish_reason": "stop"}}]}}'


def test_a_reply_is_found_again_under_its_key(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log:
        log.put("k", "model", REQUEST, body("hi"), 0.1)
    with RequestLog(tmp_path / "log.sqlite") as log:
        found = log.get("k")
        assert found is not None
        assert (found.content, found.cached) == ("hi", True)
        assert log.get("other") is None


def test_of_two_replies_to_one_request_the_first_stands(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as one, RequestLog(tmp_path / "log.sqlite") as two:
        assert one.put("k", "model", REQUEST, body("first"), 0.1) == body("first")
        assert two.put("k", "model", REQUEST, body("second"), 0.1) == body("first")
        assert len(two) == 1


_WRITER = """
import sys
from pathlib import Path
from generators.request_log import RequestLog
from tests.generators.test_request_log import REQUEST, body
with RequestLog(Path(sys.argv[1])) as log:
    for number in range(100_000):
        log.put(f"{sys.argv[2]}-{number}", "model", REQUEST, body("hi"), 0.1)
        print(number, flush=True)
"""


def writer(path: Path, name: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), name],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def test_what_was_committed_survives_sigkill_with_two_processes_writing(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    writers = {name: writer(path, name) for name in ("a", "b")}
    told: dict[str, int] = {}
    for name, process in writers.items():
        assert process.stdout is not None
        for _ in range(30):
            told[name] = int(process.stdout.readline())
    for process in writers.values():
        process.send_signal(signal.SIGKILL)
        process.wait()
    with RequestLog(path) as log:
        for name, last in told.items():
            assert all(log.get(f"{name}-{number}") is not None for number in range(last + 1))


def test_a_file_that_is_no_log_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    path.write_bytes(b"not a database, but long enough to look like one" * 40)
    with pytest.raises(StorageError, match=r"log\.sqlite: cannot be used as the request log"):
        RequestLog(path)


def test_a_log_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(StorageError, match="version 99, expected 1"):
        RequestLog(path)
