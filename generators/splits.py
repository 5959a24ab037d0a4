"""Divide groups of rows into splits, and sample rows evenly over strata.

Label and control text are not one to one: a label can have several control texts and a text
several labels. Rows that share either, even through other rows, are one group, and a group falls
into one split; else a decoder is tested on controls that it was trained on.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from core.config import Config
from core.documents.canonical import digest
from core.errors import ConfigError
from core.records.tables import SPLITS, Split
from generators.rules.words import normalize_line

_SPLIT_NAMES: dict[str, Split] = {
    **dict(zip(SPLITS, SPLITS, strict=True)),
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "validation",
}
_TURNS = 10_000
"""Groups among which every split with a share worth the name has had its turn."""


class SplitConfig(Config):
    """How groups of rows are divided into splits; a group is in one split."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the groups of each kind for validation."""
    test: float = Field(default=0.2, ge=0, lt=1)
    """Share of the groups of each kind for test."""
    test_ood: tuple[str, ...] = ()
    """Categories (`kind/category`) that are held out whole, as split `test_ood`."""
    stimuli: float = Field(default=0.0, ge=0, lt=1)
    """Share of the stimuli held out of training, if controls have several. Training controls with
    held-out stimuli form the split `test_seen`; all other splits have held-out stimuli only."""
    seed: int = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _some_train(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test leave nothing to train on; expected less than 1")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitMember:
    """The parts of a row that decide its group and split."""

    label: str
    control: str
    kind: str
    category: str
    split: Split | None = None
    """The split that the row itself names; its group's other rows without one follow it."""


def split_named(name: str) -> Split | None:
    """Return the split that a data set's own name of one means; None for any other name.

    What follows in the name says which rows or which file: `train_sft`, `test-00000-of-00002`.
    """
    plain = name.strip().lower()
    return _SPLIT_NAMES.get(plain) or _SPLIT_NAMES.get(re.split(r"[^a-z]", plain)[0])


def grouped_splits(
    members: Sequence[SplitMember], config: SplitConfig, *, in_order: Collection[str] = ()
) -> list[tuple[str, Split]]:
    """Assign a `group_id` and a split to each member, in the order given.

    Groups with a held-out category go whole to `test_ood`. The others of a kind are ordered by a
    hash of seed and group, and the first of them, to the exact share of groups, become test, the
    next validation, the rest train. Drawing each group by itself (test where its hash is below the
    share) would never move a group when rows are added, but misses the share by chance, badly so
    for kinds with few groups; in this order added rows move only groups at the two borders.
    With three groups or more, each split with a share above zero gets at least one, and train too.
    A row that names its own split keeps it.

    Args:
        members: what is divided.
        config: the shares.
        in_order: kinds whose members come in a drawn order, to which more are only ever appended:
            their groups are divided as they come, so that added rows move none.

    Raises:
        ConfigError: a held-out category is none of the data's.
    """
    ids = group_ids([(m.label, m.control) for m in members])
    held_out = _held_out(members, config)
    kind_of: dict[str, str] = {}
    ood: set[str] = set()
    # a group can span kinds; the label that names the group decides, whatever the rows' order
    for member, group in zip(members, ids, strict=True):
        if _label_hash(member.label) == group:
            kind_of[group] = member.kind
        if (member.kind, member.category) in held_out:
            ood.add(group)
    split_of: dict[str, Split] = dict.fromkeys(ood, "test_ood")
    for member, group in zip(members, ids, strict=True):
        if member.split is not None:
            split_of.setdefault(group, member.split)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for group, kind in kind_of.items():
        if group not in split_of:
            by_kind[kind].append(group)
    for kind, groups in by_kind.items():
        # one or two groups are for training: as they come, they would be test and validation alone
        if kind in in_order and len(groups) >= 3:
            split_of |= zip(groups, _as_they_come(config), strict=False)
            continue
        ordered = sorted(groups, key=lambda g: digest(["split", config.seed, kind, g]))
        test, validation = _counts(len(ordered), config)
        for i, group in enumerate(ordered):
            split_of[group] = (
                "test" if i < test else "validation" if i < test + validation else "train"
            )
    return [
        (group, member.split or split_of[group]) for member, group in zip(members, ids, strict=True)
    ]


def split_sizes(groups: int, config: SplitConfig, *, in_order: bool = False) -> Counter[Split]:
    """Count the groups of each split among which so many groups of one kind are divided.

    Args:
        groups: of the kind, those with a held-out category left out.
        config: the shares.
        in_order: whether they come in a drawn order (see `grouped_splits`).
    """
    if in_order and groups >= 3:
        return Counter(itertools.islice(_as_they_come(config), min(groups, _TURNS)))
    test, validation = _counts(groups, config)
    sizes: dict[Split, int] = {"test": test, "validation": validation}
    return +Counter({**sizes, "train": groups - test - validation})


def group_ids(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Assign each (label, control text) to its group: what labels and texts connect.

    Texts that differ in case, white space or how characters are encoded are one text. The id is
    the smallest hash of the group's labels, 16 hex digits: it stays when rows of known labels are
    added, whatever their order.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return []
    nodes: dict[tuple[str, str], int] = {}
    labels = [nodes.setdefault(("label", label), len(nodes)) for label, _ in pairs]
    plain = [normalize_line(text) for _, text in pairs]
    texts = [nodes.setdefault(("text", text), len(nodes)) for text in plain]
    links = coo_array((np.ones(len(pairs)), (labels, texts)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(links, directed=False)
    smallest: dict[int, str] = {}
    for (label, _), node in zip(pairs, labels, strict=True):
        own, group = _label_hash(label), component[node]
        smallest[group] = min(smallest.get(group, own), own)
    return [smallest[component[node]] for node in labels]


def take_evenly(strata: Sequence[Hashable], limit: int) -> list[int]:
    """Choose at most `limit` rows spread over their strata; positions in ascending order.

    Strata take turns, in the order of their first row, two rows a turn: comparing a row with
    another control of its kind and split needs a second one there. Within a stratum the first
    rows are taken.
    """
    queues: dict[Hashable, list[int]] = defaultdict(list)
    for position, stratum in enumerate(strata):
        queues[stratum].append(position)
    turns = ((start, queue) for start in range(0, len(strata), 2) for queue in queues.values())
    taken: list[int] = []
    for start, queue in turns:
        taken += queue[start : start + 2]
        if len(taken) >= min(limit, len(strata)):
            break
    return sorted(taken[:limit])


def _counts(groups: int, config: SplitConfig) -> tuple[int, int]:
    at_least = 1 if groups >= 3 else 0

    def share(of: float) -> int:
        return max(at_least if of > 0 else 0, math.floor(groups * of + 0.5))

    test = min(share(config.test), max(0, groups - 1 - at_least * (config.validation > 0)))
    return test, min(share(config.validation), max(0, groups - 1 - test))


def _as_they_come(config: SplitConfig) -> Iterator[Split]:
    """Yield the splits of successive groups: each share is met, rounded up, at every length."""
    test = validation = 0
    for groups in itertools.count(1):
        if test < math.ceil(groups * config.test):
            test += 1
            yield "test"
        elif validation < math.ceil(groups * config.validation):
            validation += 1
            yield "validation"
        else:
            yield "train"


def _held_out(members: Sequence[SplitMember], config: SplitConfig) -> set[tuple[str, str]]:
    known: Mapping[str, tuple[str, str]] = {
        f"{m.kind}/{m.category}": (m.kind, m.category) for m in members
    }
    for name in config.test_ood:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}" if near else "found " + ", ".join(sorted(known))
            raise ConfigError(
                f"splits.test_ood: no row has the category {name!r}; "
                f"expected kind/category as in the data ({hint})."
            )
    return {known[name] for name in config.test_ood}


@functools.lru_cache(maxsize=1 << 16)
def _label_hash(label: str) -> str:
    return digest(["group", label])[:16]
