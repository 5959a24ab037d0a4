"""Shards as calls of a task pool: each call computes and commits some, in whatever process it is.

The arguments are plain. The tokens lie in a file beside the store; a process reads them, and loads
the target, at its first call for a store, and keeps both for the next.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from activation_store.layout.commit_records import commit_path
from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan
from activation_store.model_files.files import ModelFiles
from activation_store.target.load import load_model, use_threads
from activation_store.target.tensor_parallel import load_shared
from activation_store.target.worker_devices import find_model, plain_model, worker_device
from activation_store.tokens.token_table import TokenTable
from activation_store.write.capture_shards import capture_shards
from activation_store.write.prepared import PreparedDump, plan_store, prepare_tokens
from activation_store.write.reuse import ReusableStores
from core.documents.canonical import canonical_json
from core.errors import StoreError, why_failed
from core.processes.task_pool import TaskPool, split, worker_number
from core.runtime import Runtime

TOKENS_FILE = "tokens.arrow"
"""Tokens of all sequences, for the time of the dump."""
_MOST_SHARDS = 16
"""Shards of a call at most: a shard is committed while the call computes the next."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardWork:
    """A store that is being written.

    Attributes:
        out: the store's folder, with its plan written.
        reusable: finished stores from which rows are taken over.
    """

    out: Path
    plan: Plan
    prepared: PreparedDump
    model: ModelFiles
    runtime: Runtime
    reusable: Sequence[Path] = ()

    def load_target(self, *, merged: bool = True) -> nn.Module:
        """Load the blocks of the target that are needed, on the first device of `runtime`."""
        if self.runtime.tensor_parallel > 1:
            return load_shared(
                self.model,
                dtype=self.plan.compute_dtype,
                runtime=self.runtime,
                first_blocks=blocks_needed(self.plan),
            )
        device = worker_device(self.runtime, 0)
        return _load(self.model, self.plan, device, self.runtime, merged=merged)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for other processes."""
        return {
            "out": str(self.out.resolve()),
            "plan": self.plan.digest,
            "config": self.prepared.config.model_dump(mode="json"),
            "model": plain_model(self.model),
            "runtime": self.runtime.model_dump(mode="json"),
            "reusable": [str(path.resolve()) for path in self.reusable],
        }


def write_with_pool(
    work: ShardWork,
    shards: Sequence[int],
    pool: TaskPool,
    report_tokens: Callable[[int], object] = int,
) -> int:
    """Compute and commit shards by calls of a pool, as far as these get.

    A call that fails is told in the log. Calls are made for what is left until nothing more comes
    of it; the caller writes the rest itself, and so meets the same error or does the work.

    Args:
        work: the store.
        shards: numbers of the shards that are not committed.
        pool: runs the calls.
        report_tokens: called with tokens that are done.

    Returns:
        Tokens that the target was run on.
    """
    forward_tokens = 0
    file = work.out / TOKENS_FILE
    work.prepared.tokens.write(file)
    try:
        while shards:
            groups = split(shards, pool, most=_MOST_SHARDS)
            calls = [{"work": work.plain(), "shards": list(group)} for group in groups]
            labels = [f"shards {group[0]}-{group[-1]}" for group in groups]
            for outcome in pool.run(write_shard_group, calls, labels):
                group = groups[outcome.number]
                if outcome.error is None:
                    forward_tokens += outcome.value
                    report_tokens(sum(map(work.plan.shard_tokens, group)))
                else:
                    _LOG.warning(
                        "store %s: %s: %s",
                        work.out,
                        labels[outcome.number],
                        why_failed(outcome.error),
                    )
                    done = [shard for shard in group if commit_path(work.out, shard).exists()]
                    report_tokens(sum(map(work.plan.shard_tokens, done)))
            left = [shard for shard in shards if not commit_path(work.out, shard).exists()]
            if len(left) == len(shards):
                break
            shards = left
    finally:
        file.unlink(missing_ok=True)
    return forward_tokens


def write_shard_group(*, work: Mapping[str, Any], shards: Sequence[int]) -> int:
    """Compute and commit some shards of a store.

    Args:
        work: as `ShardWork.plain` returns it; the store's plan and tokens are written.
        shards: their numbers.

    Returns:
        Tokens that the target was run on.

    Raises:
        StoreError: the folder has another plan.
        LatentQAError: as `capture_shards`.
    """
    runtime = Runtime.model_validate(work["runtime"])
    use_threads(runtime)
    described = canonical_json({name: work[name] for name in ("out", "plan", "config", "model")})
    device = worker_device(runtime, worker_number())
    plan, tokens, net = _open(described.decode(), str(device), runtime.attn_implementation)
    return capture_shards(
        plan,
        shards,
        out=Path(work["out"]),
        tokens=tokens,
        net=net,
        reusable=ReusableStores([Path(path) for path in work["reusable"]], plan),
    )


def _load(
    model: ModelFiles, plan: Plan, device: torch.device, runtime: Runtime, *, merged: bool = True
) -> nn.Module:
    """Load the blocks of a target that are needed."""
    return load_model(
        model,
        dtype=plan.compute_dtype,
        device=device,
        merged=merged,
        runtime=runtime,
        first_blocks=blocks_needed(plan),
    )


def blocks_needed(plan: Plan) -> int:
    """Return the number of blocks up to the deepest that is read, and the one behind it.

    With that one the canary finds the deepest in transformers' own list of hidden states.
    """
    return max(plan.layers) + 2


@lru_cache(maxsize=1)
def _open(described: str, device: str, attention: str | None) -> tuple[Plan, TokenTable, nn.Module]:
    """Read plan and tokens of a store, and load its target; the next call finds them.

    Args:
        described: `out`, `plan`, `config` and `model` of the `ShardWork`, as JSON.
        device: where the target goes.
        attention: `runtime.attn_implementation`.
    """
    known = json.loads(described)
    out, config = Path(known["out"]), CaptureConfig.model_validate(known["config"])
    model = find_model(known["model"])
    tokens = TokenTable.read(out / TOKENS_FILE)
    plan = plan_store(out, prepare_tokens(tokens, config, model))
    if plan.digest != known["plan"]:
        raise StoreError(
            f"store {out}: has plan {plan.digest[:12]}…, expected {known['plan'][:12]}…: the "
            "target or the store changed meanwhile. Run the dump again."
        )
    runtime = Runtime(attn_implementation=attention)
    return plan, tokens, _load(model, plan, torch.device(device), runtime)
