"""A Prefect server on a PostgreSQL database, from Debian's package `postgresql`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from operated import ask, flow_states, start, wait_for
from prefect_server import HOST, free_port, prefect_server

CHILD = Path(__file__).parent / "fake_cli.py"
OWNER = "postgres" if os.geteuid() == 0 else None
"""PostgreSQL refuses to run as root."""


def program(name: str) -> str | None:
    """Find a program of PostgreSQL, which Debian does not put into the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Start PostgreSQL in a folder of its own, and yield the URL of its database."""
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="latentqa-postgres-"))
    if OWNER is not None:
        shutil.chown(folder, OWNER)
    port, data = free_port(), str(folder / "data")
    words = [initdb, "--pgdata", data, "--username", "prefect", "--auth", "trust"]
    subprocess.run(words, user=OWNER, cwd=folder, check=True, capture_output=True)
    server = subprocess.Popen(
        [postgres, "-D", data, "-h", HOST, "-p", str(port), "-k", str(folder)],
        user=OWNER,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: query(port, "select 1") == ["1"], 120)
        yield f"postgresql+asyncpg://prefect@{HOST}:{port}/postgres"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def query(port: int, statement: str) -> list[str]:
    """Return the lines that a query answers; none where the database is not up."""
    psql = program("psql") or "psql"
    words = [psql, "-h", HOST, "-p", str(port), "-U", "prefect", "-Atc", statement, "postgres"]
    return subprocess.run(words, capture_output=True, text=True).stdout.split()


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_runs_are_kept_in_postgresql(database: str, tmp_path: Path) -> None:
    (tmp_path / "fake.yaml").write_text("experiment: fake\ndata: {path: .}\n")
    words = (str(CHILD), str(tmp_path / "log"), "1", "0", "run", "fake.yaml", "--root", "root")
    settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    with prefect_server(tmp_path, **settings) as (url, _):
        for _ in range(2):
            assert start(tmp_path, url, *words).wait(400) == 0
        assert flow_states(url, "latentqa") == ["Completed"] * 2

        def tasks() -> list[str]:
            return sorted(one["state_name"] for one in ask(url, "POST", "task_runs/filter", {}))

        wait_for(lambda: tasks() == ["Cached"] * 6 + ["Completed"] * 6, 60)
        assert any(one["type"] == "table" for one in ask(url, "POST", "artifacts/filter", {}))
    port = int(database.rpartition(":")[2].partition("/")[0])
    assert query(port, "select distinct state_name from flow_run") == ["Completed"]
    assert query(port, "select count(*) from task_run") == ["12"]
    with contextlib.suppress(FileNotFoundError):
        assert not list(tmp_path.glob("*.db"))
