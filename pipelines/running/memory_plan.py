"""The memory that an experiment's steps take on a device, and settings that fit into it.

Nothing is loaded but the model's config (trainers/memory.py says how it is estimated).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError, LatentQAError, ModelError, first_line
from core.text.wording import count, join, size
from pipelines.experiment.config import Experiment

if TYPE_CHECKING:
    from activation_store.model_files.files import ModelFiles
    from trainers.memory import StepMemory

ROOM = 0.9
"""Share of a device that is planned with: its allocator and libraries take of the rest."""
ROW_TOKENS = 256
"""Tokens of a row that estimates assume."""
_LEAST_TOKENS, _MOST_TOKENS = 1024, 1 << 16
_SCORED_TOKENS = 2048
"""Tokens of a pass of an evaluation (decoder/scoring.py)."""
_UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 1 << 20, "GIB": 1 << 30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Settings with which the steps fit.

    Attributes:
        batch_tokens: `dump.batch_tokens`; None where a dump does not fit eight devices.
        dump_devices: that share the weights in a dump: `runtime.tensor_parallel`.
        micro_batch_tokens: `train.micro_batch_tokens`; None where not even 32 devices would do.
        checkpointing: `runtime.checkpointing`.
        devices: that share the weights in training; more than one with `runtime.sharding: full`.
        evaluation_devices: over which the model is spread in an evaluation: more than one with
            `runtime.spread`; None where it does not fit eight devices.
    """

    batch_tokens: int | None
    dump_devices: int
    micro_batch_tokens: int | None
    checkpointing: bool
    devices: int
    evaluation_devices: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """What the steps of an experiment take, in bytes.

    Attributes:
        parameters: numbers of the model.
        device: bytes of one device.
        steps: by name, with the experiment's own settings.
        token: of training, for one more token of a micro-batch.
        recomputed_token: likewise with `runtime.checkpointing`.
        proposal: settings that fit the device.
    """

    parameters: int
    device: int
    steps: dict[str, StepMemory]
    token: int
    recomputed_token: int
    proposal: Proposal

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        steps = {k: {**asdict(v), "peak": v.peak} for k, v in self.steps.items()}
        return {**asdict(self), "steps": steps}


def parse_bytes(text: str) -> int:
    """Read an amount of memory, such as `80GB` (10^9) or `40GiB` (2^30).

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not float(found[1]):
        raise ConfigError(f"--device-memory: got {text!r}, expected an amount such as 80GB.")
    return int(float(found[1]) * unit)


def device_memory() -> int:
    """Return the bytes of the smallest GPU of this machine; without one, of its memory."""
    import torch

    if torch.cuda.is_available():
        here = range(torch.cuda.device_count())
        return min(torch.cuda.get_device_properties(i).total_memory for i in here)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredPasses:
    """What passes of `_LEAST_TOKENS` and twice as many tokens take.

    Attributes:
        parameters: numbers of the model.
        dumps: of a dump.
        kept: of training.
        recomputed: of training with `runtime.checkpointing`.
        evaluation: of one pass of an evaluation.
    """

    parameters: int
    dumps: list[StepMemory]
    kept: list[StepMemory]
    recomputed: list[StepMemory]
    evaluation: StepMemory


def plan_memory(experiment: Experiment, model: ModelFiles, device: int) -> MemoryPlan:
    """Estimate the memory of dump, train and evaluate, and find settings that fit.

    Args:
        experiment: with its number formats resolved.
        model: the target's files.
        device: bytes of one device.

    Raises:
        ModelError: the model has not the layers, or its passes cannot be run without weights.
    """
    from activation_store.target.load import model_shape
    from trainers.memory import MemoryModel

    shape = model_shape(model)
    layers = [shape.layer(k, "dump.layers") for k in experiment.dump.layers]
    config = MemoryModel.read(model, experiment.train.precision).config
    # torch logs pages about what it cannot run on fake tensors
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        measured = measure(experiment, config, layers)
    except LatentQAError:
        raise
    except Exception as error:  # blocks that read values (experts, positions) fail in any way
        raise ModelError(
            f"plan --memory: model {model.ref} (type {config.model_type}) cannot be estimated "
            f"without its weights ({first_line(error)}). Run it with --smoke to see what it takes."
        ) from error
    return fit(measured, experiment, device)


def measure(experiment: Experiment, config: Any, layers: Sequence[int]) -> MeasuredPasses:
    """Measure the passes of an experiment's steps on fake tensors, which have shapes and no data.

    Args:
        experiment: with its number formats resolved.
        config: transformers' config of the model.
        layers: read layers, counted from 0.
    """
    from trainers.memory import MemoryModel, Workload

    target = MemoryModel(config=config, dtype=experiment.dump.compute_dtype)
    trained = MemoryModel(config=config, dtype=experiment.train.precision)
    judged = MemoryModel(config=config, dtype=experiment.evaluate.compute_dtype)

    def training(tokens: int, *, checkpointing: bool) -> StepMemory:
        work = Workload(tokens=tokens, row_tokens=ROW_TOKENS)
        return trained.measure_training(work, experiment.train.lora, checkpointing=checkpointing)

    sizes = (_LEAST_TOKENS, 2 * _LEAST_TOKENS)
    loaded = max(layers) + 2
    return MeasuredPasses(
        parameters=target.count_parameters(),
        dumps=[target.measure_dump(len(layers), loaded, n, ROW_TOKENS) for n in sizes],
        kept=[training(n, checkpointing=False) for n in sizes],
        recomputed=[training(n, checkpointing=True) for n in sizes],
        evaluation=judged.measure_loss(Workload(tokens=_SCORED_TOKENS, row_tokens=ROW_TOKENS)),
    )


def fit(measured: MeasuredPasses, experiment: Experiment, device: int) -> MemoryPlan:
    """Estimate the memory of the steps from measured passes, and propose settings for a device."""
    own = measured.recomputed if experiment.runtime.checkpointing else measured.kept
    return MemoryPlan(
        parameters=measured.parameters,
        device=device,
        steps={
            "dump": _at(measured.dumps, experiment.dump.batch_tokens),
            "train": _at(own, experiment.train.micro_batch_tokens),
            "evaluate": measured.evaluation,
        },
        token=_slope(measured.kept),
        recomputed_token=_slope(measured.recomputed),
        proposal=_propose(measured, round(ROOM * device)),
    )


def _slope(measured: list[StepMemory]) -> int:
    """Return the bytes of one more token, of passes of `_LEAST_TOKENS` and twice as many."""
    few, more = measured
    return (more.passes - few.passes) // _LEAST_TOKENS


def _at(measured: list[StepMemory], tokens: int) -> StepMemory:
    """Return the memory of a pass of `tokens`, from passes of two sizes."""
    few, _ = measured
    return replace(few, passes=few.passes + _slope(measured) * (tokens - _LEAST_TOKENS))


def _most_tokens(measured: list[StepMemory], room: int, devices: int) -> int | None:
    """Return the largest power of two of tokens that fit; None where too few do."""
    few, _ = measured
    # what is gathered of shared weights for a block, and for embeddings and head, is in each device
    held = few.weights if devices == 1 else few.weights // devices + few.weights // 16
    found = None
    tokens = _LEAST_TOKENS
    while tokens <= _MOST_TOKENS:
        at = _at(measured, tokens)
        if held + at.peak - at.weights <= room:
            found = tokens
        tokens *= 2
    return found


def _spread_devices(measured: StepMemory, room: int) -> int | None:
    """Return the number of devices on which a model fits, some blocks on each; None for over 8."""
    for devices in (1, 2, 4, 8):
        # blocks are not divided, and the last device has the head too
        uneven = 0 if devices == 1 else measured.weights // 16
        if measured.peak - measured.weights + measured.weights // devices + uneven <= room:
            return devices
    return None


def _propose(measured: MeasuredPasses, room: int) -> Proposal:
    """Propose the fewest devices that fit, with recomputation only where it is needed."""
    dump_devices = next((n for n in (1, 2, 4, 8) if _most_tokens(measured.dumps, room, n)), 8)
    found = Proposal(
        batch_tokens=_most_tokens(measured.dumps, room, dump_devices),
        dump_devices=dump_devices,
        micro_batch_tokens=None,
        checkpointing=True,
        devices=32,
        evaluation_devices=_spread_devices(measured.evaluation, room),
    )
    for devices in (1, 2, 4, 8, 16, 32):
        for checkpointing, passes in ((False, measured.kept), (True, measured.recomputed)):
            trained = _most_tokens(passes, room, devices)
            if trained:
                return replace(
                    found,
                    micro_batch_tokens=trained,
                    checkpointing=checkpointing,
                    devices=devices,
                )
    return found


def describe_memory(plan: MemoryPlan) -> list[str]:
    """Format a memory plan as lines for a terminal."""
    lines = [f"memory         {count(plan.parameters)} parameters, a device of {size(plan.device)}"]
    for name, step in plan.steps.items():
        parts = {
            "weights": step.weights,
            "adapter": step.adapter,
            "optimiser": step.optimiser,
            "passes": step.passes,
        }
        words = ", ".join(f"{part} {size(value)}" for part, value in parts.items() if value)
        lines.append(f"  {name:<13}{size(step.peak)}: {words}")
    lines.append(
        f"  per token    {size(plan.token)} in training, {size(plan.recomputed_token)} with "
        "runtime.checkpointing"
    )
    fits = plan.proposal
    said: list[str] = []
    if fits.batch_tokens:
        said.append(f"dump.batch_tokens {fits.batch_tokens}")
        if fits.dump_devices > 1:
            said.append(f"runtime.tensor_parallel {fits.dump_devices}")
    if fits.micro_batch_tokens:
        said.append(f"train.micro_batch_tokens {fits.micro_batch_tokens}")
        said += ["runtime.checkpointing true"] if fits.checkpointing else []
        if fits.devices > 1:
            said.append(f"runtime.processes {fits.devices} with runtime.sharding full")
    if (fits.evaluation_devices or 1) > 1:
        said.append(f"runtime.spread true over {fits.evaluation_devices} for evaluate")
    large = {
        "dump": not fits.batch_tokens,
        "train": not fits.micro_batch_tokens,
        "evaluate": not fits.evaluation_devices,
    }
    lines += [f"  fits         {', '.join(said)}"] if said else []
    if any(large.values()):
        lines.append(f"  too large    {join([name for name, so in large.items() if so])}")
    return lines
