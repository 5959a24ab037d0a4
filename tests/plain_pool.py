"""A pool of two workers whose calls run here, with plain arguments as another process gets them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from core.processes.task_pool import InProcess, TaskOutcome


class TwoWorkers(InProcess):
    """Runs one call after the other, whose arguments went through JSON."""

    workers = 2

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[Mapping[str, Any]],
        labels: Sequence[str] = (),
    ) -> Iterator[TaskOutcome]:
        """Call a function once for each set of named arguments, as `TaskPool.run`."""
        return super().run(function, json.loads(json.dumps(calls)), labels)
