"""Stores that another target wrote, such as a fine-tune of the decoder's own.

Reading such a store shows how far an unchanged decoder follows a target that has moved.
"""

from __future__ import annotations

from activation_store.model_files.files import public_name
from activation_store.read.reader import ActivationStore
from activation_store.target.load import model_shape
from core.errors import ConfigError, StoreError
from core.runtime import Runtime
from decoder.sources.step_inputs import StepInputs
from evaluators.measure.metrics import ForeignTarget, TargetIdentity


def find_differences(own: dict[str, str], found: dict[str, str]) -> tuple[str, ...]:
    """Name the digests in which two targets differ; none where they are equal."""
    return tuple(sorted(k for k in own.keys() | found.keys() if own.get(k) != found.get(k)))


def open_foreign(
    inputs: StepInputs, runtime: Runtime
) -> tuple[ActivationStore, ForeignTarget | None]:
    """Open a store that another target than the decoder's may have written.

    Args:
        inputs: the store, and the decoder's own target.
        runtime: size of the reader's cache.

    Returns:
        The store, and both targets where they are two.

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
    differences = find_differences(own, found)
    if not differences:
        return opened, None
    adapter = None if model.adapter is None else public_name(str(model.adapter))
    decoder = TargetIdentity(model=public_name(model.ref), adapter=adapter, digests=own)
    return opened, ForeignTarget(
        differs=differences, decoder=decoder, store=TargetIdentity(digests=found)
    )
