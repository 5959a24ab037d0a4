"""Plots: deterministic, themed, safe with any text, and honest about absent intervals."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipelines.reports import plots
from pipelines.reports.plots.style import PALETTE, inline_svg, png, svg

PANELS = tuple(
    plots.Panel(
        title,
        "n = 12",
        (
            plots.Point("right", 2.0, 1.9, 2.1, "own"),
            plots.Point("other", 2.6, 2.4, 2.8, "other"),
            plots.Point("none", 2.5, None, None, hollow=True),
        ),
    )
    for title in ("control", "system", "stimulus", "a $x_1 <b>", "fifth")
)
SERIES = plots.Series("persona", (1.0, 2.0), (1.5, 2.5))
FIGURES: dict[str, Callable[[], Figure]] = {
    "wide": lambda: plots.intervals(PANELS, xlabel="nats per token", zero=True, guide="right"),
    "narrow": lambda: plots.intervals(PANELS, xlabel="nats per token", columns=1),
    "training": lambda: plots.training_curve(
        SERIES, plots.Series("validation", (1.0,), (1.5,), "other"), best=1, columns=3
    ),
    "paired": lambda: plots.paired(
        [plots.SeriesPanel("control", "1 of 2", (SERIES,))], xlabel="right", ylabel="other"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_values_give_the_same_bytes(name: str) -> None:
    assert svg(FIGURES[name]()) == svg(FIGURES[name]())
    assert png(FIGURES[name](), dpi=40) == png(FIGURES[name](), dpi=40)


@pytest.mark.parametrize("name", FIGURES)
def test_inline_figures_use_palette_colours_alone(name: str) -> None:
    text = inline_svg(svg(FIGURES[name]()), "f", "what it shows")
    themed = re.sub(r"var\(--plot-\w+, #[0-9a-f]{6}\)", "", text)
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", themed)
    assert "var(--plot-" in text


def test_style_sheet_has_each_colour_for_light_and_for_dark_paper() -> None:
    css = (Path(plots.__file__).parents[1] / "pages" / "style.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    dark = dark[: dark.index("}\n}")]
    for colour in PALETTE:
        assert f"--plot-{colour}:" in light, colour
        assert f"--plot-{colour}:" in dark, colour
    assert len(set(PALETTE.values())) == len(PALETTE)


def test_inline_figures_keep_their_ids_apart() -> None:
    document = svg(FIGURES["wide"]())
    first, second = (inline_svg(document, name, "") for name in ("a", "b"))
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', first))
    assert used <= ids[0]


def test_text_of_labels_is_escaped_and_never_read_as_mathematics() -> None:
    text = inline_svg(svg(FIGURES["wide"]()), "f", 'says "<b>"')
    assert "a $x_1 &lt;b&gt;" in text
    assert 'aria-label="says &#34;&lt;b&gt;&#34;"' in text


def test_a_figure_without_dates_or_sizes_of_its_own() -> None:
    text = inline_svg(svg(FIGURES["wide"]()), "f", "")
    assert "<metadata>" not in text
    assert re.match(r"<svg [^>]*viewBox", text)
    assert not re.match(r"<svg [^>]*\b(width|height)=", text)


def test_points_without_an_interval_or_a_spread_are_drawn() -> None:
    panel = plots.Panel("control", "n = 1", (plots.Point("right", 2.0),))
    assert "2.00" in svg(plots.intervals([panel], xlabel="nats per token"))


def test_a_training_run_of_validation_alone_is_drawn() -> None:
    empty = plots.Series("training loss", (), ())
    figure = plots.training_curve(empty, SERIES, best=None, columns=1)
    assert "optimiser step" in svg(figure)


def test_smoothing_keeps_length_and_constants_and_calms_both_ends() -> None:
    values = [float(i % 7) for i in range(50)]
    smoothed = plots.smooth(values, 0.2)
    assert len(smoothed) == 50
    assert smoothed[0] == sum(values[:6]) / 6
    assert plots.smooth([3.0] * 9, 0.5) == [3.0] * 9
    assert plots.smooth([], 0.5) == []


def test_a_new_section_starts_a_row_under_its_name() -> None:
    panels = [plots.Panel("control", "", PANELS[0].points, section) for section in ("a1", "b2")]
    together = plots.intervals(panels, xlabel="")
    alone = plots.intervals(panels[:1], xlabel="")
    assert together.get_figheight() == 2 * alone.get_figheight()
    assert "a1</text>" in svg(together)
    assert "b2</text>" in svg(together)


def test_common_limits_hold_every_interval_and_zero() -> None:
    low, high = plots.common_limits(PANELS, zero=True)
    assert low < 0.0 < 2.8 < high
    assert plots.common_limits(PANELS)[0] > 0.0


def test_lines_that_are_no_shares_are_shown_whole_and_with_zero() -> None:
    steered = plots.Series("vector", (1.0, 2.0), (-18.0, 41.5), "own")
    figure = plots.lines(
        [plots.SeriesPanel("cheerful", "validation", (steered,))],
        xlabel="perplexity ratio",
        ylabel="adherence",
        shares=False,
    )
    low, high = figure.axes[0].get_ylim()
    assert low < -18.0
    assert high > 41.5


def test_a_map_of_one_block_shows_its_unit_whole() -> None:
    unit = "nats per token above none"
    figure = plots.heat(
        np.zeros((1, 2)),
        rows=["1"],
        columns=["a", "b"],
        ylabel="block",
        unit=unit,
        colour_limit=1.0,
    )
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text() == unit]
    (box,) = (text.get_window_extent() for text in texts)
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert box.y0 >= figure.axes[0].get_window_extent().y1
