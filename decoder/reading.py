"""Which activations of a row the decoder sees: one rule for training, evaluation and asking."""

from __future__ import annotations

from activation_store.reader import ActivationStore
from decoder.batch import Reading
from generators.errors import DataError


def withheld_tokens(view: str, withheld: int, *, masking: bool) -> int:
    """Leading tokens that are not shown: none in view `control`, and none without masking."""
    return withheld if masking and view != "control" else 0


def stored_reading(
    store: ActivationStore, example_id: str, view: str, layer: int, *, masking: bool
) -> Reading:
    """The visible activations of a stored row.

    Raises:
        DataError: the row is not in the store, or masking leaves nothing of it.
    """
    placed = store.place(example_id)
    first = withheld_tokens(view, placed.withheld, masking=masking)
    if first >= placed.n_tokens:
        raise DataError(f"example {example_id}: masking leaves no activation to read.")
    vectors = store.read(example_id, layer)[first:]
    return Reading(vectors, len(vectors), first)
