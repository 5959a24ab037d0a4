"""Pages whose figures are drawn and not rendered: rendering takes most of the time of a page.

Rendering is tested in tests/pipelines/reports.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

_SVG = '<svg width="1" height="1"></svg>'


@contextlib.contextmanager
def unrendered_figures() -> Iterator[None]:
    """Let SVG and PNG files of figures be empty within."""
    from pipelines.reports.plots import page_figure  # loads matplotlib
    from pipelines.reports.run import figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_figure, "svg", lambda figure: _SVG)
        for module in (page_figure, figures):
            patch.setattr(module, "png", lambda figure: b"")
        yield
