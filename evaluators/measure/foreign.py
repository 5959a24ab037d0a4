"""A store that another target wrote, such as a fine-tune of the decoder's own: how far does the
unchanged decoder read it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from activation_store.read.reader import ActivationStore
from activation_store.target.files import public_name
from activation_store.target.load import model_shape
from core.errors import ConfigError, StoreError
from core.runtime import Runtime
from decoder.step_inputs import StepInputs


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignTarget:
    """The target of a store, where it is not the decoder's own.

    Attributes:
        own: digests of the decoder's target.
        found: digests of the target that wrote the store.
        model, adapter: the reference of the decoder's target, without folders of a machine.
    """

    own: dict[str, str]
    found: dict[str, str]
    model: str
    adapter: str | None

    @property
    def differs(self) -> tuple[str, ...]:
        """What is not as in the decoder's own target (`weights`, `adapter`, ...)."""
        return target_differs(self.own, self.found)

    def to_json(self) -> dict[str, Any]:
        """What stands in the results: {"differs", "decoder", "store"}, the last two digests."""
        return {
            "differs": list(self.differs),
            "decoder": {"model": self.model, "adapter": self.adapter, "digests": self.own},
            "store": {"digests": self.found},
        }


def target_differs(own: dict[str, str], found: dict[str, str]) -> tuple[str, ...]:
    """Names of the digests in which two targets differ; none where they are one."""
    return tuple(sorted(k for k in own.keys() | found.keys() if own.get(k) != found.get(k)))


def open_foreign(
    inputs: StepInputs, runtime: Runtime
) -> tuple[ActivationStore, ForeignTarget | None]:
    """Open a store that another target than the decoder's may have written.

    Args:
        inputs: the store, and the decoder's own target.
        runtime: size of the reader's cache.

    Returns:
        The store, and its target where that is another one.

    Raises:
        ConfigError: there is no store.
        StoreError: it holds activations of another width.
    """
    store, model = inputs.store, inputs.model
    if store is None:
        raise ConfigError(
            "evaluate: activations on the fly are the decoder's own target's; a foreign target "
            "is read from its store. Set train.activations to `store` for the rows' experiment."
        )
    opened = ActivationStore(store, cache_mb=runtime.shard_cache_mb)
    width = model_shape(model).d_model
    if opened.d_model != width:
        raise StoreError(
            f"store {store}: its activations are {opened.d_model} wide, the decoder expects "
            f"{width}. A foreign target must be of the decoder's own shape, such as a fine-tune."
        )
    own, found = model.digests(), dict(opened.plan["target"])
    if not target_differs(own, found):
        return opened, None
    adapter = None if model.adapter is None else public_name(str(model.adapter))
    return opened, ForeignTarget(
        own=own, found=found, model=public_name(model.ref), adapter=adapter
    )
