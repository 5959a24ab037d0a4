"""The input that a decoder gets of a row while it is trained.

| variant | input | so it learns |
|---|---|---|
| own | the row's own activations | to read |
| prior | the activations of another control of the same kind | what answers look like, no more |
| visible_text | the visible tokens, no activations | what can be read off the visible text |
| text | the control's own words in place of activations | what can be answered at best |

The last three are baselines: the same training, with nothing to read, with what is visible anyway,
and with everything.
The other control of `prior` is drawn anew in each epoch. Epochs are counted from 0, and validation
always gets the inputs of epoch 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.documents.canonical import digest
from core.errors import DataError
from decoder.question_prompt import DecoderPrompt
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource, ReadLayers, read_visible
from trainers.config import Variant
from trainers.data.rows import Row, count_visible_tokens, read_row

LayerChoice = Callable[[str, int], ReadLayers]
"""Layers that are read of an example, from its id and the epoch."""


def _read_nothing(row: Row, example_id: str, epoch: int) -> Reading:
    raise ValueError("a decoder that is given no activations has none to be contrasted with")


@dataclass(frozen=True, slots=True)
class DecoderInputs:
    """The input of each row in each epoch.

    Attributes:
        read: returns the input of a row in an epoch.
        length: returns its number of tokens, without reading it.
        read_swapped: returns the activations of another example, of the same view, at the layers
            that are read of the row in an epoch; of decoders that read activations alone.
    """

    read: Callable[[Row, int], Reading]
    length: Callable[[Row, int], int]
    read_swapped: Callable[[Row, str, int], Reading] = _read_nothing


def make_decoder_inputs(
    variant: Variant,
    rows: Sequence[Row],
    store: ActivationSource,
    prompt: DecoderPrompt,
    *,
    layers: LayerChoice,
    masking: bool,
    seed: int,
) -> DecoderInputs:
    """Choose the inputs of a decoder of `variant`.

    Args:
        variant: which decoder is trained.
        rows: all rows of the split, from which other controls are drawn.
        store: where activations are read.
        prompt: makes the tokens of a text.
        layers: layers that are read of an example.
        masking: whether the control's own tokens are withheld.
        seed: of the draw of other controls.

    Raises:
        DataError: `prior`, and a view of the split has a single group of rows.
    """
    if variant == "text":
        return DecoderInputs(
            lambda row, epoch: make_text_reading(prompt, row),
            lambda row, epoch: make_text_reading(prompt, row).n,
        )
    if variant == "visible_text":
        return DecoderInputs(
            lambda row, epoch: make_visible_text_reading(store, row, masking=masking),
            lambda row, epoch: count_visible_tokens(store, row, masking=masking),
        )
    if variant == "own":
        return make_activation_inputs(store, layers=layers, masking=masking)
    donors = lru_cache(maxsize=1)(lambda epoch: draw_donors(rows, seed=seed, epoch=epoch))
    donors(0)  # fails early where no row could be a donor
    return make_activation_inputs(store, layers=layers, masking=masking, donors=donors)


def make_activation_inputs(
    store: ActivationSource,
    *,
    layers: LayerChoice,
    masking: bool,
    donors: Callable[[int], Mapping[str, Row]] | None = None,
) -> DecoderInputs:
    """Give each row its own visible activations, or those of a donor.

    Args:
        store: where activations are read.
        layers: layers that are read of an example.
        masking: whether the control's own tokens are withheld.
        donors: for an epoch, by example id, the rows whose activations are given instead.
    """

    def source(row: Row, epoch: int) -> Row:
        return donors(epoch)[row.example_id] if donors else row

    def read(row: Row, epoch: int) -> Reading:
        chosen = layers(row.example_id, epoch)
        return read_row(store, source(row, epoch), chosen, masking=masking)

    def length(row: Row, epoch: int) -> int:
        visible = count_visible_tokens(store, source(row, epoch), masking=masking)
        return visible * len(layers(row.example_id, epoch).layers)

    def read_swapped(row: Row, example_id: str, epoch: int) -> Reading:
        chosen = layers(row.example_id, epoch)
        return read_visible(store, example_id, row.conversation.view, chosen, masking=masking)

    return DecoderInputs(read, length, read_swapped)


def make_text_reading(prompt: DecoderPrompt, row: Row) -> Reading:
    """Put the control's own words where activations would be."""
    ids = prompt.text(row.conversation.control)
    return Reading(None, len(ids), 0, ids=ids, counted_from_0=True)


def make_visible_text_reading(store: ActivationSource, row: Row, *, masking: bool) -> Reading:
    """Put the visible tokens themselves where their activations would be, at their positions."""
    visible = count_visible_tokens(store, row, masking=masking)
    ids = np.asarray(store.tokens(row.example_id)[-visible:], np.int64)
    return Reading(None, visible, store.place(row.example_id).n_tokens - visible, ids=ids)


def draw_donors(rows: Sequence[Row], *, seed: int, epoch: int = 0) -> dict[str, Row]:
    """Draw for each row one of another group, of the same view and kind, each equally often.

    Rows of a view and kind are shuffled by seed, anew in each epoch, so that a row does not meet
    the same activations again and again, by which it could be recognised. Each takes the next row
    of another group; a row whose group is alone of its kind takes one of any kind.

    Returns:
        Row by example id.

    Raises:
        DataError: a view has rows of a single group.
    """
    by_kind: dict[tuple[str, str], list[Row]] = defaultdict(list)
    by_view: dict[str, list[Row]] = defaultdict(list)
    salt = [epoch] if epoch else []
    for row in sorted(rows, key=lambda row: digest([seed, row.example_id, *salt])):
        by_kind[row.conversation.view, row.conversation.kind].append(row)
        by_view[row.conversation.view].append(row)
    out: dict[str, Row] = {}
    for alike in by_kind.values():
        out |= _pair_with_next_group(alike)
    for view, seen in by_view.items():
        out = _pair_with_next_group(seen) | out
        if missing := [row for row in seen if row.example_id not in out]:
            raise DataError(
                f"train, variant prior: the {len(missing)} rows of view {view} in split "
                f"{missing[0].conversation.split} are all of one group; expected another control "
                "whose activations they could be given. Add rows, or leave `prior` out of "
                "evaluate.baselines."
            )
    return out


def _pair_with_next_group(rows: Sequence[Row]) -> dict[str, Row]:
    out = {}
    for i, row in enumerate(rows):
        group = row.conversation.group_id
        later = (rows[(i + step) % len(rows)] for step in range(1, len(rows)))
        found = next((other for other in later if other.conversation.group_id != group), None)
        if found is not None:
            out[row.example_id] = found
    return out
