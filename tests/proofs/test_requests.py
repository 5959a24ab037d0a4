"""LLM requests under faults and kills, at full counts, against a scripted server over real HTTP."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from endpoints import REASONS, FaultMix
from http_endpoint import request_id
from scripted_endpoint import ScriptedEndpoint

from core.records.table_files import read_conversations, read_dropped

ROOT = Path(__file__).parents[2]
CONTROLS = 400
"""Of each of three kinds: with the stimuli of two of them, 2,000 rows are asked for."""
KILLS = 20

_WORKER = """
import sys
from pathlib import Path
from generators.llm.endpoint.resolve import ResolvedEndpoint
from endpoints import conversations, small
endpoint = ResolvedEndpoint(
    base_url=sys.argv[2], api_key="sk-secret-0123456789", model="scripted", identity="scripted@1",
    timeout_s=1, retries=8, backoff_s=0.05,
)
conversations(Path(sys.argv[1]), endpoint, small(int(sys.argv[3])))
"""


def start(folder: Path, endpoint: ScriptedEndpoint) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(folder), endpoint.base_url, str(CONTROLS)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def replies(log: Path) -> dict[str, str]:
    """Key of each finished request to the number that the server gave its body."""
    if not log.exists():
        return {}
    with sqlite3.connect(log) as db:
        rows = db.execute("SELECT key, body FROM replies").fetchall()
    return {key: json.loads(zlib.decompress(body))["id"] for key, body in rows}


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_many_faults_and_kills(proved: dict[str, Any], tmp_path: Path) -> None:
    """Under faults and kills every row is written or listed, none twice, no request repeated"""
    draw = random.Random(0)
    faults = FaultMix(seed=0)
    log = tmp_path / "log.sqlite"
    kills = repeated = 0
    ended: int | None = None
    with ScriptedEndpoint(fault=faults, latency_s=0.05, hang_s=30) as endpoint:
        while ended is None:
            finished = set(replies(log).values())
            before = len(endpoint.requests)
            process = start(tmp_path, endpoint)
            if kills < KILLS:
                # from the first request on, so that kills fall on asking and not on imports
                while len(endpoint.requests) == before and process.poll() is None:
                    time.sleep(0.01)
                time.sleep(draw.uniform(0.0, 2.0))
                ended = process.poll()
                if ended is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    kills += 1
            else:
                ended = process.wait()
            _, said = process.communicate()
            assert not ended, said.decode()
            asked = {request_id(body) for body in endpoint.requests[before:]}
            repeated += len(asked & finished)
        sent = len(endpoint.work)
    had = replies(log)
    rows = read_conversations(tmp_path / "c/conversations.parquet")
    dropped = read_dropped(tmp_path / "c/dropped.parquet")
    kept = {row.control_id for row in rows}
    proved["seed"] = 0
    proved["kills"] = kills
    proved["requests sent"] = sent
    proved["faults injected"] = str(dict(sorted(faults.counts.items())))
    proved["finished requests"] = len(had)
    proved["finished requests that were sent again"] = repeated
    proved["controls planned, kept"] = f"{3 * CONTROLS}, {len(kept)}"
    proved["rows"] = len(rows)
    proved["dropped, by reason"] = str(dict(Counter(row.reason for row in dropped)))
    assert kills == KILLS
    assert repeated == 0
    # a reply stands under one key, and no reply under two
    assert len(set(had.values())) == len(had)
    assert len({row.example_id for row in rows}) == len(rows)
    assert {row.reason for row in dropped} <= REASONS
    listed = sum(row.where.startswith("control ") for row in dropped)
    assert len(kept) + listed >= 3 * CONTROLS
    assert {key for row in rows for key in row.provenance["requests"]} <= set(had)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"sk-secret" not in path.read_bytes()
