"""The points of a sweep: each is an ordinary run of the experiment with a few fields set."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.documents.canonical import digest
from core.documents.yaml_values import parse_yaml
from core.errors import ConfigError
from core.text.redact import redact_override
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.experiment.sweep_config import ALIASES, SEED, SweepSection

_LONGEST_NAME = 80
"""Most characters of a point's experiment name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPoint:
    """One training of one setting."""

    label: str
    """What the user reads: `rows=40 rank=8 seed=1`."""
    setting: Mapping[str, Any]
    """Value by axis, as the user names the axis."""
    seed: int
    """The value of `train.seed`."""
    overrides: tuple[str, ...]
    """`field=value` of the run that it is, those of the whole sweep first."""
    experiment: Experiment
    """The experiment that it runs."""

    @property
    def name(self) -> str:
        """Name of the point's experiment, which is the REF of its run."""
        return self.experiment.experiment


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """A sweep over one experiment."""

    name: str
    """Name of the experiment."""
    section: SweepSection
    """What is varied."""
    points: tuple[SweepPoint, ...]
    """Setting by setting, the seeds of each one after the other."""


def plan_sweep(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    vary: Sequence[str] = (),
    seeds: int | None = None,
) -> SweepPlan:
    """Read an experiment file, and lay out the points of its sweep.

    Args:
        config: the experiment file.
        overrides: `field=value` for every point.
        vary: axes as `FIELD=a,b,c`; where any is given, they replace those of the file.
        seeds: trainings of each setting; None takes the file's.

    Raises:
        ConfigError: the file, an axis or a point is wrong, or nothing is varied.
    """
    base = load_experiment(config, overrides)
    section = _section(base, vary, seeds)
    fields = {axis: ALIASES.get(axis, axis) for axis in section.vary}
    shared = tuple(overrides) + _stored_layers(base, section)
    points = []
    for values in itertools.product(*section.vary.values()):
        setting = dict(zip(section.vary, values, strict=True))
        for seed in range(base.train.seed, base.train.seed + section.seeds):
            own = [f"{fields[axis]}={json.dumps(value)}" for axis, value in setting.items()]
            own += [
                f"{SEED}={seed}",
                f"experiment={_point_name(base.experiment, setting, seed)}",
                "sweep=null",
            ]
            everything = (*shared, *own)
            points.append(
                SweepPoint(
                    label=" ".join([*(f"{a}={shown(v)}" for a, v in setting.items()), f"{seed=}"]),
                    setting=setting,
                    seed=seed,
                    overrides=everything,
                    experiment=load_experiment(
                        config, shared, axes=own, option="--vary" if vary else "sweep.vary"
                    ),
                )
            )
    return SweepPlan(name=base.experiment, section=section, points=tuple(points))


def shown(value: Any) -> str:
    """Spell a value of an axis, for a label."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _section(base: Experiment, vary: Sequence[str], seeds: int | None) -> SweepSection:
    changes: dict[str, Any] = {} if seeds is None else {"seeds": seeds}
    if vary:
        axes = [_parse_axis(text) for text in vary]
        changes["vary"] = dict(axes)
        if len(changes["vary"]) < len(axes):
            raise ConfigError("--vary: got a field twice, expected each once with all its values.")
    try:
        section = (base.sweep or SweepSection()).with_changes(**changes)
    except ValidationError as error:
        said = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"--vary: {said}.") from error
    if not section.vary:
        raise ConfigError(
            "sweep: got no axis, expected --vary FIELD=a,b,c, such as --vary "
            "rows=20,40,80, or a section `sweep` in the experiment file."
        )
    return section


def _parse_axis(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    shown_axis = f"--vary {redact_override(text)}"
    if not equals or not name.strip() or not values.strip():
        raise ConfigError(f"{shown_axis}: expected FIELD=a,b,c, such as train.lora.rank=4,16,64.")
    axis = name.strip()
    if "." not in axis and axis not in (*ALIASES, *Experiment.model_fields):
        near = difflib.get_close_matches(axis, ALIASES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{shown_axis}: unknown axis {axis}, expected one of {', '.join(ALIASES)}, or "
            f"the full path of a field.{hint}"
        )
    return axis, list(parse_yaml(f"[{values}]", shown_axis))


def _stored_layers(base: Experiment, section: SweepSection) -> tuple[str, ...]:
    """Let one store hold the layers of an axis over read layers, so that none is dumped twice."""
    axes = (axis for axis in section.vary if ALIASES.get(axis, axis) == ALIASES["read_layer"])
    read = {layer for axis in axes for layer in section.vary[axis] if layer is not None}
    # each point names its own block, so one that is named in another way is not needed
    ways = set(map(type, read))
    stored = {layer for layer in base.dump.layers if {type(layer)} == ways}
    return (f"dump.layers={json.dumps(sorted(stored | read))}",) if read - stored else ()


def _point_name(experiment: str, setting: Mapping[str, Any], seed: int) -> str:
    """Name the experiment of a point; readable where its values are short."""
    words = [f"{axis.rpartition('.')[2]}-{shown(value)}" for axis, value in setting.items()]
    plain = [re.sub(r"[^a-z0-9_-]+", "-", word.lower()).strip("-") for word in words]
    exact = all(re.fullmatch(r"[a-z0-9_-]+", word) for word in words)
    name = "_".join([experiment, *plain, f"seed-{seed}"])
    if exact and len(name) <= _LONGEST_NAME:
        return name
    short = "_".join([experiment, *plain])[: _LONGEST_NAME - 20].rstrip("_-")
    return f"{short}_{digest(dict(setting))[:8]}_seed-{seed}"
