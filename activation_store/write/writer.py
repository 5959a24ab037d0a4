"""A writer: leases a shard, computes it, commits it while it computes the next, until none is left.

Forward passes go on from one shard to the next without a stop. One commit is under way at a time,
so that a writer holds the shard that it fills and the one that it commits: two shards, and with a
codec that packs the second one's packed bytes, which are less.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from activation_store.layout.arrays import layer_array, shard_file
from activation_store.layout.commit_records import commit_path, commit_shard, make_folders
from activation_store.layout.file_marks import Mark
from activation_store.layout.plan import Plan
from activation_store.target.lanes import Lanes, patient
from activation_store.target.to_host import ToHost
from activation_store.target.tokens import Tokens
from activation_store.write.leases import LeaseLost, Leases
from activation_store.write.reuse import Others
from activation_store.write.shard_builder import Content, Filling, Found, Part
from core.files import storage_errors
from core.progress import Progress, silent

_LOG = logging.getLogger(__name__)
_WAIT = 0.05
"""Seconds between two looks at shards that other writers are at."""


@dataclass(slots=True)
class Filled:
    """What one writer did.

    Attributes:
        tokens: tokens of the shards that it committed.
        computed: those of them that the target was run on.
    """

    tokens: int = 0
    computed: int = 0


@dataclass(frozen=True, slots=True)
class _Commit:
    """A commit under way.

    Attributes:
        computed: tokens of the shard that the target was run on.
        done: whether it was this writer that published the shard.
    """

    shard: int
    computed: int
    done: Future[bool]


class Writer:
    """One writer of a store, among others or alone.

    Args:
        rows: tokens by example id.
        net: the target.
        others: stores from which rows are taken over; none where it is None.
        leases: this writer's; its own where it is None.

    Attributes:
        filled: what it did so far.
    """

    def __init__(
        self,
        out: Path,
        plan: Plan,
        rows: Mapping[str, Tokens],
        net: nn.Module,
        *,
        others: Others | None = None,
        leases: Leases | None = None,
        progress: Progress = silent,
    ) -> None:
        self.filled = Filled()
        self._out, self._plan, self._rows, self._net = out, plan, rows, net
        self._others = others or Others((), plan)
        self._leases = leases or Leases(out)
        self._progress = progress
        self._under_way: dict[int, Filling] = {}
        self._linked: dict[int, dict[str, Mark]] = {}
        self._ended = False
        self._done = 0
        self._at_hand: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def fill(self, missing: Sequence[int], *, wanted: Callable[[], bool] = lambda: True) -> Filled:
        """Compute and commit shards until all of `missing` are committed.

        Args:
            missing: shards without a record, in the order in which they are tried.
            wanted: asked before each shard; the writer ends where it says no.

        Raises:
            StoreError: an activation is not finite.
            ModelError: the device has no room for a single sequence.
            StorageError: the disk is full; committed shards stay.
        """
        make_folders(self._out, self._plan)
        self._ended = False
        left = dict.fromkeys(missing)
        self._sizes = {k: sum(s.n_tokens for s in self._plan.shard(k)) for k in left}
        self._done = self._plan.tokens - sum(self._sizes.values())
        self._tell()
        behind: _Commit | None = None

        def keep() -> None:
            self._keep(left)

        with ThreadPoolExecutor(1) as pool, Lanes(self._net) as lanes:
            try:
                while left and not self._ended:
                    parts = self._parts(left, wanted, ToHost(lanes.device, self._plan.dtype))
                    for filling, part, found in lanes.each(_run, parts, keep):
                        if self._is_ours(filling):
                            filling.put(part, found)
                            keep()
                        if self._is_ours(filling):
                            self._at_hand[filling.shard] += part.tokens
                            self._tell()
                        if self._is_ours(filling) and filling.whole:
                            self._settle(behind, left)
                            behind = self._begin_commit(filling, pool)
                    self._settle(behind, left)
                    behind = None
                    if left and not self._ended:
                        time.sleep(_WAIT)  # others are at all that is left
            except BaseException:
                for shard in self._under_way:
                    with contextlib.suppress(OSError):  # it ends with this process, too
                        self._leases.release(shard)
                raise
        return self.filled

    def _parts(
        self, left: dict[int, None], wanted: Callable[[], bool], to_host: ToHost
    ) -> Iterator[tuple[Filling, Part]]:
        """The parts of shard after shard, each leased when its first part is asked for, until
        others are at all that is left."""
        while wanted():
            shard = self._take(left)
            if shard is None:
                return
            try:
                self._linked[shard] = linked = self._link(shard)
            except BaseException:
                self._leases.release(shard)
                raise
            lacking = [
                k for k in self._plan.layers if shard_file(layer_array(k), shard) not in linked
            ]
            filling = Filling(self._plan, self._rows, shard, lacking, to_host)
            self._under_way[shard], self._at_hand[shard] = filling, 0
            for part in filling.parts(self._others):
                if not self._is_ours(filling):
                    break  # another writer's by now
                yield filling, part
        self._ended = True

    def _take(self, left: dict[int, None]) -> int | None:
        """A shard to compute, no longer in `left`; what others have committed goes from there."""
        while (shard := self._leases.take(left)) is not None:
            del left[shard]
            if not commit_path(self._out, shard).exists():
                return shard
            self._done += self._sizes[shard]
            self._leases.release(shard)
        for gone in [s for s in left if commit_path(self._out, s).exists()]:
            self._done += self._sizes[gone]
            del left[gone]
        return None

    def _is_ours(self, filling: Filling) -> bool:
        """Whether a shard that was begun is still this writer's to fill."""
        return self._under_way.get(filling.shard) is filling

    def _keep(self, left: dict[int, None]) -> None:
        """Renew the leases of all shards under way; those that are lost go back to `left`."""
        for shard in list(self._under_way):
            try:
                self._leases.keep(shard)
            except LeaseLost as lost:
                del self._under_way[shard]
                self._lost(shard, left, lost)

    def _begin_commit(self, filling: Filling, pool: ThreadPoolExecutor) -> _Commit | None:
        """Commit a shard that is filled; None where it was lost in the last moment."""
        if not self._is_ours(filling):
            return None
        shard = filling.shard
        del self._under_way[shard]
        done = pool.submit(self._commit, shard, filling.content, self._linked.pop(shard))
        return _Commit(shard, filling.computed, done)

    def _link(self, shard: int) -> dict[str, Mark]:
        """The layers of a shared shard that another store has, now here."""
        found: dict[str, Mark] = {}
        if shard < len(self._plan.shared):
            with storage_errors(self._out):
                for layer in self._plan.layers:
                    found |= self._others.link(self._out, self._plan, shard, layer_array(layer))
        return found

    def _commit(self, shard: int, content: Content, linked: Mapping[str, Mark]) -> bool:
        """Whether this writer, and no other in the meantime, has published the shard."""
        try:
            self._leases.renew(shard)
            if commit_path(self._out, shard).exists():
                return False
            commit_shard(self._out, self._plan, shard, content, linked)
            return True
        finally:
            self._leases.release(shard)

    def _settle(self, behind: _Commit | None, left: dict[int, None]) -> None:
        """Wait for a commit, and count it."""
        if behind is None:
            return
        try:
            if patient(behind.done, lambda: self._keep(left)):
                self.filled.tokens += self._sizes[behind.shard]
                self.filled.computed += behind.computed
        except LeaseLost as lost:
            self._lost(behind.shard, left, lost)
        else:
            self._at_hand.pop(behind.shard)
            self._done += self._sizes[behind.shard]

    def _lost(self, shard: int, left: dict[int, None], lost: LeaseLost) -> None:
        """Look at a shard again that went to another writer: it may be given back."""
        _LOG.warning("store %s: %s It goes on with another.", self._out, lost)
        self._at_hand.pop(shard, None)
        left[shard] = None

    def _tell(self) -> None:
        done = self._done + sum(self._at_hand.values())
        self._progress(done, self._plan.tokens, "tokens")


def _run(net: nn.Module, item: tuple[Filling, Part]) -> tuple[Filling, Part, Found]:
    """The forward passes of a part; in a lane's thread, where there are several."""
    filling, part = item
    return filling, part, filling.run(net, part)
