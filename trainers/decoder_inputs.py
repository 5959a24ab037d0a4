"""What a decoder is given of a row while it is trained.

| variant | the decoder is given | so it learns |
|---|---|---|
| own | the row's own activations | to read |
| prior | the activations of another control of the same kind | what answers look like, no more |
| text | the control's own words in place of activations | what can be answered at best |

The last two are baselines: the same training, with nothing to read and with everything.
Which control `prior` is given is drawn anew in each pass over the rows; passes are counted from 0,
and validation is always given what pass 0 is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.canonical import digest
from core.errors import DataError
from decoder.batch import Reading
from decoder.prompt import DecoderPrompt
from decoder.visible_tokens import Activations, ReadLayers
from trainers.config import Variant
from trainers.rows import Row, read_row, visible_tokens

Layers = Callable[[str, int], ReadLayers]
"""Which layers are read of an example, by its id, in a pass."""


@dataclass(frozen=True, slots=True)
class Given:
    """How rows are read.

    Attributes:
        read: what the decoder is given of a row in a pass.
        length: its number of tokens, without reading it.
    """

    read: Callable[[Row, int], Reading]
    length: Callable[[Row, int], int]


def given(
    variant: Variant,
    rows: Sequence[Row],
    store: Activations,
    prompt: DecoderPrompt,
    *,
    layers: Layers,
    masking: bool,
    seed: int,
) -> Given:
    """What a decoder of `variant` is given.

    Args:
        rows: all rows of the split, from which other controls are drawn.
        layers: which layers are read of an example.

    Raises:
        DataError: `prior`, and a view of the split has a single group of rows.
    """
    if variant == "text":
        return Given(
            lambda row, a_pass: text_reading(prompt, row),
            lambda row, a_pass: text_reading(prompt, row).n,
        )
    if variant == "own":
        return own(store, layers=layers, masking=masking)
    donors = lru_cache(maxsize=1)(lambda a_pass: shuffled(rows, seed=seed, a_pass=a_pass))
    donors(0)  # refuses rows among which there are none
    return own(store, layers=layers, masking=masking, donors=donors)


def own(
    store: Activations,
    *,
    layers: Layers,
    masking: bool,
    donors: Callable[[int], Mapping[str, Row]] | None = None,
) -> Given:
    """Each row's own visible activations.

    Args:
        donors: for a pass, by example id, the rows whose activations are given instead.
    """

    def source(row: Row, a_pass: int) -> Row:
        return donors(a_pass)[row.example_id] if donors else row

    def read(row: Row, a_pass: int) -> Reading:
        chosen = layers(row.example_id, a_pass)
        return read_row(store, source(row, a_pass), chosen, masking=masking)

    def length(row: Row, a_pass: int) -> int:
        visible = visible_tokens(store, source(row, a_pass), masking=masking)
        return visible * len(layers(row.example_id, a_pass).layers)

    return Given(read, length)


def text_reading(prompt: DecoderPrompt, row: Row) -> Reading:
    """The control's own words where activations would be."""
    ids = prompt.text(row.conversation.control)
    return Reading(None, len(ids), 0, ids=ids)


def shuffled(rows: Sequence[Row], *, seed: int, a_pass: int = 0) -> dict[str, Row]:
    """For each row one of another group, of the same view and kind, each used about as often.

    Rows of a view and kind stand in an order drawn by seed, anew in each pass over the rows, so
    that no row comes with the same activations again and again, by which it could be known. Each
    takes the next of another group; a row whose group is alone of its kind takes one of any kind.

    Returns:
        Row by example id.

    Raises:
        DataError: a view has rows of a single group.
    """
    by_kind: dict[tuple[str, str], list[Row]] = defaultdict(list)
    by_view: dict[str, list[Row]] = defaultdict(list)
    later = [a_pass] if a_pass else []
    for row in sorted(rows, key=lambda row: digest([seed, row.example_id, *later])):
        by_kind[row.conversation.view, row.conversation.kind].append(row)
        by_view[row.conversation.view].append(row)
    out: dict[str, Row] = {}
    for alike in by_kind.values():
        out |= _next_of_another_group(alike)
    for view, seen in by_view.items():
        out = _next_of_another_group(seen) | out
        if missing := [row for row in seen if row.example_id not in out]:
            raise DataError(
                f"train, variant prior: the {len(missing)} rows of view {view} in split "
                f"{missing[0].conversation.split} are all of one group; expected another control "
                "whose activations they could be given. Add rows, or leave `prior` out of "
                "evaluate.baselines."
            )
    return out


def _next_of_another_group(rows: Sequence[Row]) -> dict[str, Row]:
    out = {}
    for i, row in enumerate(rows):
        group = row.conversation.group_id
        later = (rows[(i + step) % len(rows)] for step in range(1, len(rows)))
        found = next((other for other in later if other.conversation.group_id != group), None)
        if found is not None:
            out[row.example_id] = found
    return out
