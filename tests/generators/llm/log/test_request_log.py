import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StorageError
from generators.llm.chat.request import Attempt, Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.log import request_log
from generators.llm.log.request_log import RequestLog

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


def put(log: RequestLog, key: str, text: str) -> str:
    """Commit a reply; the body that stands."""
    attempt = Attempt(key=key, status=200, seconds=0.1)
    return log.put("model", REQUEST.name, body(text), attempt).result(timeout=30)


def test_a_reply_is_found_again_under_its_key(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log:
        put(log, "k", "hi")
    with RequestLog(tmp_path / "log.sqlite") as log:
        found = log.get("k")
        assert found is not None
        assert (found.raw, found.batched) == (body("hi"), False)
        assert log.get("other") is None


def test_of_two_replies_to_one_request_the_first_stands(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as one, RequestLog(tmp_path / "log.sqlite") as two:
        assert put(one, "k", "first") == body("first")
        assert put(two, "k", "second") == body("first")
        assert two.rows("SELECT count(*) FROM replies") == [(1,)]


_WRITER = """
import sys
from pathlib import Path
from generators.llm.log.request_log import RequestLog
from tests.generators.llm.log.test_request_log import put
with RequestLog(Path(sys.argv[1])) as log:
    for number in range(100_000):
        put(log, f"{sys.argv[2]}-{number}", "hi")
        print(number, flush=True)
"""


def writer(path: Path, name: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[4]
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


def test_a_full_disk_asks_nobody_to_move_the_log_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(request_log, "_connect", full)
    with pytest.raises(StorageError, match=r"\(disk I/O error\)\. Finished replies are kept"):
        RequestLog(tmp_path / "log.sqlite")


def test_two_that_make_a_log_at_the_same_time_both_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.sqlite"
    version_of = request_log._version
    others = iter([path])

    def version_before_another_made_it(db: sqlite3.Connection, path: Path) -> int:
        found = version_of(db, path)
        for other in others:
            with RequestLog(other) as log:
                put(log, "theirs", "hi")
        return found

    monkeypatch.setattr(request_log, "_version", version_before_another_made_it)
    with RequestLog(path) as log:
        put(log, "mine", "hi")
        assert set(log.get_all(["mine", "theirs"])) == {"mine", "theirs"}


def test_a_log_that_a_newer_version_changes_meanwhile_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.sqlite"
    version_of = request_log._version
    newer = iter([99])

    def version_before_it_changed(db: sqlite3.Connection, path: Path) -> int:
        found = version_of(db, path)
        for version in newer:
            with sqlite3.connect(path) as other:
                other.execute(f"PRAGMA user_version={version}")
        return found

    monkeypatch.setattr(request_log, "_version", version_before_it_changed)
    with pytest.raises(StorageError, match="version 99"):
        RequestLog(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_log_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(StorageError, match="version 99, expected 5"):
        RequestLog(path)


def test_many_are_found_at_once(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log:
        waiting = [
            log.put("m", REQUEST.name, body(str(n)), Attempt(key=f"k{n}", status=200, seconds=0.1))
            for n in range(1200)
        ]
        assert [future.result(30) for future in waiting] == [body(str(n)) for n in range(1200)]
        found = log.get_all([f"k{n}" for n in range(1500)])
        assert {key: stored.raw for key, stored in found.items()} == {
            f"k{n}": body(str(n)) for n in range(1200)
        }


def test_attempts_keep_what_was_seen_of_them(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with RequestLog(path) as log:
        log.note(
            Attempt(
                key="k", status=429, seconds=0.2, detail="HTTP 429", headers={"retry-after": "1"}
            )
        )
        log.note(Attempt(key="k", status=None, seconds=5.0, detail="no reply"))
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT status, detail, headers, seconds, cost FROM attempts").fetchall()
    assert rows == [
        (429, "HTTP 429", '{"retry-after": "1"}', 0.2, None),
        (None, "no reply", "{}", 5.0, None),
    ]


def test_a_write_that_fails_is_told_to_who_waits_and_to_who_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = RequestLog(path)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE replies")
    for _ in range(2):
        with pytest.raises(StorageError, match=r"log\.sqlite: cannot write"):
            put(log, "k", "hi")
    with pytest.raises(StorageError, match="cannot write"):
        log.__exit__(None, None, None)
