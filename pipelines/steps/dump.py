"""The step `dump`: the target runs once on every conversation, and its activations are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from activation_store.layout.config import CaptureConfig
from core.documents.canonical import digest
from core.errors import ConfigError
from core.runtime import Runtime
from pipelines.artifacts.cache_key import deciding, plain
from pipelines.artifacts.records import StepResult, StoreDigests
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.step import (
    ExternalInputs,
    Step,
    StepCall,
    capture_config,
    model_location,
)

DUMP = "dump"
_OF_STORE = {"store_dtype": "dtype", "codec": "codec", "chunk_rows": "chunk_rows"}
"""Settings of a dump that its store has in its plan, and their names there."""


def dump_step(conversations: str) -> Step:
    """Return the step, which reads what the step `conversations` makes."""
    return Step(
        name=DUMP,
        version=5,
        entry="activation_store.write.dump",
        run=_dump,
        config=lambda experiment: deciding(plain(experiment.dump, CaptureConfig)),
        inputs={"conversations": conversations},
        external=lambda outside: outside.dump_digests,
        locations=model_location,
        size=_dump_size,
        resumes_output=True,
    )


def find_reusable_stores(root: Path, runtime: Runtime) -> list[Path]:
    """Return the folders of the finished stores below the artifact root `root`, newest first.

    None where `runtime.reuse_rows` is off.
    """
    if not runtime.reuse_rows:
        return []
    return [artifact.data for artifact in reversed(ArtifactRoot(root).artifacts(DUMP))]


def _dump(call: StepCall) -> StepResult:
    from activation_store.write.adopt import adopt_store
    from activation_store.write.dump import dump

    config, model = capture_config(call.experiment), call.outside.model
    if (store := call.outside.store) is not None:
        conversations = call.data("conversations")
        result = adopt_store(
            store, call.out, conversations=conversations, config=config, model=model
        )
        digests = store_digests(call.out)
        # its vectors need not be those that a dump would have computed: its root digest counts too
        digests = replace(digests, content=digest([digests.content, digests.root]))
    else:
        result = dump(
            call.data("conversations"),
            call.out,
            config=config,
            model=model,
            runtime=call.experiment.runtime,
            progress=call.progress,
            reusable=find_reusable_stores(call.root, call.experiment.runtime),
            pool=call.pool,
        )
        digests = store_digests(call.out)
    return StepResult(counts=result.to_json(), store=digests)


def compare_store(experiment: Experiment, outside: ExternalInputs) -> str | None:
    """Compare a finished store that takes the dump's place with the settings of the dump.

    Returns:
        A line on settings that the experiment leaves open and the store has otherwise; None for
        none, and without such a store.

    Raises:
        ConfigError: the experiment names a setting, and the store has another.
        StoreError: the store's plan cannot be read.
    """
    from activation_store.layout.plan_files import read_plan

    if outside.store is None:
        return None
    dump, plan = experiment.dump, read_plan(outside.store)
    wanted = {name: getattr(dump, name) for name in _OF_STORE}
    other = {
        name: plan[there]
        for name, there in _OF_STORE.items()
        if wanted[name] not in (None, plan[there])
    }
    for name, value in other.items():
        if name in dump.model_fields_set:
            raise ConfigError(
                f"dump.{name}: got {wanted[name]}, and the store of dump.store has {value}. Leave "
                "the field out to take the store as it is, or leave out dump.store to dump again."
            )
    if not other:
        return None
    return "dump.store is taken as it is: " + ", ".join(f"{k} {v}" for k, v in other.items()) + "."


def store_digests(folder: Path) -> StoreDigests:
    """Return the digests of the finished activation store in `folder`.

    Its content is which rows it holds, of which layers and in which form. Where they lie follows
    from what other stores they were taken over from, and their activations are the same to within
    the canary's tolerance wherever they are computed: neither decides a key.

    Raises:
        DamagedError: the store is not as it was written.
    """
    from activation_store.layout.arrays import INDEX_FILE
    from activation_store.layout.index import SequenceIndex
    from activation_store.layout.plan_files import read_plan
    from activation_store.layout.root_record import read_root

    plan = read_plan(folder)
    index = SequenceIndex.read(folder / INDEX_FILE)
    rows = [
        [row.example_id, row.n_tokens, row.withheld]
        for row in sorted(index.values(), key=lambda row: row.example_id)
    ]
    content = {"rows": rows, **{name: plan[name] for name in ("layers", "d_model", "dtype")}}
    return StoreDigests(root=read_root(folder)[0], content=digest(content))


def _dump_size(
    experiment: Experiment, outside: ExternalInputs, inputs: Mapping[str, Path], sampled: bool
) -> dict[str, int]:
    from activation_store.write.estimate import store_size

    found = store_size(
        inputs["conversations"],
        config=capture_config(experiment),
        model=outside.model,
        runtime=experiment.runtime,
        sampled=sampled,
    )
    sizes = {"raw_bytes": found.raw_bytes, "lossless_bytes": found.lossless_bytes}
    return {name: value for name, value in sizes.items() if value is not None}
