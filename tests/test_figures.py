"""Figures of the studies: their widths, names that lie over nothing, and what is drawn of records."""

import itertools

import pytest

from sciml_fm_core.study.colours import MEANING
from sciml_fm_core.study.curves import curves_of, dial_rows

pytest.importorskip("matplotlib", reason="the notebooks extra is not installed")

from matplotlib.backends.backend_agg import FigureCanvasAgg

from sciml_fm_core.study.figures import COLUMN, PAGE, error_curves, error_lines, error_panels, export, strip


def records_of(names, counts=(0, 8, 64), seeds=(0,)):
    """Made-up records: the errors of all names are close to each other."""
    return [
        {"name": name, "task": "t", "start": "fine-tuned", "examples": count, "seed": seed,
         "error": 0.1 / (1 + count) ** 0.3 * (1 + 0.01 * i + 0.1 * seed)}
        for i, name in enumerate(names) for count in counts for seed in seeds
    ]  # fmt: skip


def drawn(drawing):
    """The figure, laid out, and a function that gives the box of an artist in inches."""
    figure = drawing.figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    return figure, lambda artist: artist.get_window_extent(renderer).transformed(figure.dpi_scale_trans.inverted())


def test_names_of_curves_lie_neither_over_each_other_nor_over_the_axes_nor_beyond_the_page():
    names = [f"a curve of quite a long name, number {i}" for i in range(9)]
    figure, box = drawn(error_curves(records_of(names), lambda r: r["name"]))
    (axes,) = figure.axes
    boxes = sorted((box(text) for text in axes.texts), key=lambda one: one.y0)
    assert len(boxes) == len(names)
    for below, above in itertools.pairwise(boxes):
        assert below.y1 <= above.y0 + 0.02
    assert all(box(axes.patch).x1 < one.x0 and one.x1 <= PAGE for one in boxes)


def test_panels_are_named_once_below_and_a_figure_without_names_fills_a_column():
    records = [r | {"task": task} for task in "ab" for r in records_of(["one", "two"])]
    figure, box = drawn(error_panels(records, lambda r: r["task"], lambda r: r["name"]))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
    assert box(legend).y1 <= min(box(axes.xaxis.label).y0 for axes in figure.axes)
    alone, _ = drawn(error_lines(records_of(["", ""]), lambda r: r["examples"] + 1, "examples", lambda r: ""))
    assert (figure.get_figwidth(), alone.get_figwidth()) == (PAGE, COLUMN)


def test_a_curve_is_the_median_and_the_spread_over_its_seeds():
    (curve,) = curves_of(records_of(["fine-tuned"], seeds=(0, 1, 2)), lambda r: r["name"])
    low, middle, high = curve.spread[8]
    assert middle / low == pytest.approx(1.1)
    assert high / low == pytest.approx(1.2)
    assert (curve.counts, curve.colour, curve.star) == ([8, 64], MEANING["fine-tuned"][0], MEANING["zero-shot"][0])


def test_the_rows_of_a_dial_show_what_the_sampler_leaves_out():
    (row, _) = dial_rows("SYS-3(1,10)", ["SYS-3(5,12)"], count=400)
    assert row.shares[1] < 0.1, "omega = 2 resonates"
    assert sorted(row.shares)[2] > 0.2


def test_a_figure_is_written_as_png_and_svg(tmp_path):
    paths = export({"dial": strip("SYS-1(1,5)", ["SYS-1(5,10)"], count=50)}, tmp_path)
    assert [path.name for path in paths] == ["dial.png", "dial.svg"]
    assert all(path.stat().st_size > 2000 for path in paths)
