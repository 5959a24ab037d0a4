"""The files of the step `control`: their names and columns."""

from __future__ import annotations

import pyarrow as pa

CONTROL_FILE = "control.json"
REPLIES_FILE = "replies.parquet"
JUDGED_CONTROL_FILE = "control_judged.json"

REPLIES = pa.schema(
    [
        *((name, pa.string()) for name in ("control", "method")),
        ("strength", pa.float64()),
        *((name, pa.string()) for name in ("prompt", "reply")),
        ("adherence", pa.float64()),
        ("likelihood", pa.float64()),
    ]
)
"""One row a test prompt and method, `none` for the target as it is: the reply, its score by code
(null where code cannot tell), and by how many nats a token it is likelier for a target that is told
the control."""

REPLY_VERDICTS = pa.schema(
    [
        (name, pa.string())
        for name in ("control", "method", "prompt", "reply", "measure", "first", "second")
    ]
)
"""One row a reply and measure that an LLM judged: the verdicts of both times, null where a reply
could not be read."""
