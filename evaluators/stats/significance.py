"""Do two runs differ on the same questions? Paired tests over controls.

Shapes: C controls, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_CHUNK = 1000


def sign_flip(differences_C: np.ndarray, *, samples: int, seed: int) -> float | None:
    """Two-sided p of the mean difference: were the signs of the controls a matter of chance?

    Where two runs are alike, each control's difference is as likely to be positive as negative.
    The p is the share of random signs (the given ones counted among them) whose mean is as far
    from zero as the one found.

    Args:
        differences_C: one a control.
        samples: random draws of all signs.

    Returns:
        p, or None where there is no control.
    """
    if not len(differences_C):
        return None
    found = abs(differences_C.mean())
    tiny = 1e-12 * max(1.0, float(found))
    generator = np.random.default_rng(seed)
    as_far = 1
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        signs_SC = generator.integers(0, 2, (size, len(differences_C))) * 2 - 1
        as_far += int((np.abs(signs_SC @ differences_C) / len(differences_C) >= found - tiny).sum())
    return as_far / (samples + 1)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Each p adjusted for having asked all of them (Holm 1979); a missing one stays missing."""
    order = sorted((i for i, p in enumerate(ps) if p is not None), key=lambda i: ps[i] or 0.0)
    out: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (ps[i] or 0.0) * (len(order) - rank)))
        out[i] = least
    return out
