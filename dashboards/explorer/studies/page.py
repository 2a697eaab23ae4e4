"""The studies page: menus, what a figure shows, its curves, the run that is opened, and all runs as a table."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property, partial
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import panel as pn
import param
from bokeh.models import ColumnDataSource
from panel.custom import JSComponent

from explorer import text
from explorer.bundles import find_bundles
from explorer.colours import COLOURS, coloured
from explorer.pages import Address, address_of, dashboard_page, own_query
from explorer.parts import WIDE, Html, Select, column
from explorer.serving import LIMITS, Allowance
from explorer.shared import shipped_results
from sciml_fm_core.experiments.paper import PRINTED
from sciml_fm_core.study.colours import MEANING
from sciml_fm_core.study.curves import curves_of
from sciml_fm_core.study.records import write_table

from .charts import Chart
from .figures import FIGURES
from .link import explore_query, query_of, restore
from .plots import curves_chart, dial_chart, savings_chart, validation_chart
from .records import DEFAULT_RECORDS, RECORDS_VARIABLE, find_sources
from .runs import COLUMNS, Details, rows_of
from .said import said
from .state import StudiesState

TITLE = "Studies"
INTRODUCTION = (
    "Every point is one run: an operator that was fine-tuned on so many examples, or the same network trained from "
    "scratch on them, measured on test examples that no training saw."
)
ALL_WIDE = {"flex-wrap": "wrap", "gap": "16px", "max-height": "none"}
STAYS = {"position": "sticky", "top": "0", "align-self": "flex-start", "max-height": "92vh", "overflow-y": "auto"}
"""The run that is opened stays in sight beside the table."""
BROWSER = Path(__file__).parent.parent / "browser"
TABLE = """
:host { margin: 16px 0; }
.runs { overflow-x: auto; max-height: 480px; overflow-y: auto; margin-top: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: var(--mui-palette-background-default, Canvas); }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--edge); }
.number { text-align: right; white-space: nowrap; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: left; }
th button { font-weight: 600; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
:host > button, :not(th, td) > button { border: 1px solid var(--edge); border-radius: 4px; padding: 3px 10px; }
tr { cursor: pointer; }
@media (max-width: 700px) { .runs { max-height: none; } }
tr[aria-selected=true] { background: var(--ground); font-weight: 600; }
button:focus-visible { outline: 3px solid var(--handle); }
"""
MOST_CHARTS = 2
HOW_TO_START = "papermill notebooks/q1_downstream_data.ipynb out.ipynb -p rerun True"


def _colour(chart: Chart, record: dict) -> str:
    """Both starts of one network share a colour where the name of the curve tells them apart."""
    return chart.label(record).removesuffix(f", {record['start']}")


def _printed(chart: Chart) -> dict[str, tuple[int, float]]:
    """What the paper prints of both starts on a chart's one task."""
    starts, *same = ({record[key] for record in chart.records} for key in ("start", "task", "architecture"))
    return PRINTED.get(min(same[0]), {}) if len(starts) == 2 and all(len(one) == 1 for one in same) else {}


def _legend(chart: Chart, printed: Mapping = MappingProxyType({})) -> str:
    """The names of the curves, above them: a legend in the plot would lie over points."""
    marks = [
        (
            f"<path d='M0 6h26' stroke='{curve.colour}' stroke-width='2.5' "
            f"stroke-dasharray='{'5 4' if curve.dashed else 'none'}'/>"
            if curve.counts
            else f"<text x='8' y='12' font-size='17' fill='{curve.star}'>★</text>",
            curve.name,
        )
        for curve in curves_of(chart.records, chart.label, partial(_colour, chart))
    ]
    if printed:
        marks.append(("<path d='M8 1h10v10h-10z' fill='none' stroke='currentColor'/>", "printed in the paper"))
    shown = "".join(
        "<span style='white-space:nowrap;margin-right:16px'>"
        f"<svg width='30' height='12' aria-hidden='true'>{mark}</svg>{escape(name)}</span>"
        for mark, name in marks
    )
    return f"<div style='font-size:13px;line-height:1.6;white-space:normal'>{shown}</div>"


class StudyCharts:
    """The strip, the error curves and the examples saved; a point that is clicked is opened."""

    def __init__(self, state: StudiesState):
        self.state = state
        pane = partial(pn.pane.Bokeh, **WIDE)
        self.strip, self.charts, self.saved = pane(), [pane() for _ in range(MOST_CHARTS)], pane()
        self._headings = [Html(margin=0) for _ in range(MOST_CHARTS + 2)]
        # Columns are hidden, not panes: Panel fails to hide or show the pane of a drawn figure.
        panes = self.strip, *self.charts, self.saved
        self._parts = [pn.Column(*pair, **WIDE) for pair in zip(self._headings, panes, strict=True)]
        self._drawn: list[ColumnDataSource] = []
        self.column = column(*self._parts, share="none")
        state.param.watch(lambda *_: self.paint(), ["source", "figure", "task"])
        state.param.watch(lambda *_: self._mark(), "chosen")
        self.paint()

    def paint(self) -> None:
        """Draw what is chosen."""
        picture = self.state.picture
        self._drawn.clear()
        self.column.visible = picture is not None
        if picture is None:
            return
        dial, *headings, saved = self._headings
        _, *parts, saved_part = self._parts
        dial.object = text.title("The dial", "examples drawn at each value, in pre-training and downstream")
        self.strip.object = dial_chart(picture.pretraining, picture.downstream)
        charts = picture.charts + (None,) * (MOST_CHARTS - len(picture.charts))
        for part, heading, pane, chart in zip(parts, headings, self.charts, charts, strict=True):
            part.visible = chart is not None
            if chart is not None:
                printed = _printed(chart)
                heading.object = text.title(escape(chart.title), "stars have seen no example") + _legend(chart, printed)
                curves = curves_of(chart.records, chart.label, partial(_colour, chart))
                pane.object, points = curves_chart(curves, printed, self.state.open)
                self._drawn.append(points)
        saved_part.visible = picture.saved is not None
        if picture.saved is not None:
            note = "examples from scratch for the same error; a triangle means more than were tried"
            saved.object = text.title("Examples saved", note) + _legend(picture.saved)
            self.saved.object = savings_chart(picture.saved.records, picture.saved.label)
        self._mark()

    def _mark(self) -> None:
        """Show which point is opened, however it was chosen."""
        for source in self._drawn:
            names, chosen = source.data["identity"], self.state.chosen
            source.selected.indices = [names.index(chosen)] if chosen in names else []


class RunDetails:
    """The run that is opened: its numbers, its learning, and what repeats it."""

    def __init__(self, state: StudiesState):
        self.state = state
        self.head, self.body = Html(margin=0), Html(margin=0)
        self.curve = pn.pane.Bokeh(**WIDE)
        self._curve_part = pn.Column(self.curve, visible=False, **WIDE)
        self.column = column(self.head, self._curve_part, self.body, share="1.3 1 280px")
        self.column.styles = self.column.styles | STAYS
        state.param.watch(lambda *_: self.paint(), ["source", "figure", "task", "chosen"])
        self.paint()

    def paint(self) -> None:
        """Show the run that is opened."""
        picture, details = self.state.picture, self.state.details
        self.column.visible = picture is not None
        if details is None:
            hint = "<p data-test='details'>Click a point of the curves, or a line of the table.</p>"
            self.head.object = text.title("No run is open") + hint
            self.body.object, self._curve_part.visible = "", False
            return
        (color, *_) = MEANING[details.start]
        self.head.object = (
            f"<div data-test='details'>{text.title(escape(details.title), color=color)}{self._link()}"
            f"{_made_by(details)}</div>"
        )
        self._curve_part.visible = bool(details.curve)
        if details.curve:
            self.curve.object = validation_chart(details.curve, color)
        self.body.object = "".join(
            f"<div style='margin-top:10px;font-size:13px;font-weight:600'>{escape(title)}</div>{_rows(rows)}"
            for title, rows in details.sections.items()
        ) + _rows([("identity", details.identity)])

    @cached_property
    def _there(self) -> tuple:
        """What the explore page has."""
        return find_bundles()[0], shipped_results()

    def _link(self) -> str:
        """A link to the explore page, nearest to the run."""
        query, words = explore_query(self.state.picture.records[self.state.chosen], *self._there)
        address = escape(address_of("explore", query))
        return (
            f"<div style='font-size:13px;margin:4px 0'><a href='{address}' data-test='to-explore' "
            f"style='color:inherit;font-weight:600'>Open in Explore</a>: {escape(words)}</div>"
        )


def _made_by(details: Details) -> str:
    """The notebook and what repeats the run."""
    notebook = f"Figure made by <b data-test='notebook'>{details.notebook}</b>. " if details.notebook else ""
    what = "all runs of the figure, with this one" if details.command.startswith("papermill") else "the run"
    return (
        f"<div style='font-size:13px;margin:4px 0'>{notebook}To repeat {what}:</div><pre data-test='command' "
        "style='font-size:11.5px;white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 6px;padding:6px 8px;"
        f"border-radius:4px;background:{COLOURS['ground']};user-select:all'>{escape(details.command)}</pre>"
    )


def _rows(rows: list[tuple[str, str]]) -> str:
    lines = "".join(
        "<div style='display:flex;justify-content:space-between;gap:12px'>"
        f"<span style='opacity:.8;white-space:nowrap'>{escape(name)}</span>"
        f"<span style='text-align:right;overflow-wrap:anywhere'>{escape(value)}</span></div>"
        for name, value in rows
    )
    return f"<div style='font-size:12px;line-height:1.5;font-variant-numeric:tabular-nums'>{lines}</div>"


class RunTable(JSComponent):
    """The runs that are drawn, to sort, to open and to save.

    Args:
        state: of the page.
    """

    _esm = (BROWSER / "table.js").read_text(encoding="utf-8")

    style = param.String(default=coloured(TABLE))
    columns = param.List(default=list(COLUMNS))
    rows = param.List()
    chosen = param.String(allow_None=True)

    def __init__(self, state: StudiesState, **options: Any):
        super().__init__(sizing_mode="stretch_width", **options)
        self._state, self._allowance = state, Allowance(LIMITS.messages_per_second)
        state.param.watch(lambda *_: self.paint(), ["source", "figure", "task", "chosen"])
        self.paint()

    def paint(self) -> None:
        """Show the runs of the picture."""
        picture = self._state.picture
        self.param.update(rows=rows_of(picture) if picture else [], chosen=self._state.chosen, visible=bool(picture))

    def _handle_msg(self, data: Any) -> None:
        if not (isinstance(data, dict) and self._allowance.take()):
            return
        if isinstance(data.get("open"), str):
            self._state.open(data["open"])
        elif "csv" in data and self._state.picture is not None:
            with tempfile.TemporaryDirectory() as folder:
                table = write_table(list(self._state.picture.records.values()), Path(folder) / "records.csv")
                self._send_msg({"csv": table.read_text(encoding="utf-8")})


class StudyMenus:
    """Which results, figure and task."""

    def __init__(self, state: StudiesState):
        self.state = state
        select = partial(Select, sizing_mode="stretch_width")
        self.source = select(
            label="Results",
            description=f"Results that ship come first. Your own are records in {DEFAULT_RECORDS} or the folder that "
            f"{RECORDS_VARIABLE} names, and tables that notebooks leave in runs.",
        )
        self.figure = select(label="Figure", description="These are the figures for which there are records.")
        self.task = select(label="Task", description="The strip of the dial shows pre-training and task.")
        self.note = Html()
        # Menus hold what the state has, so that a value that they send back changes nothing.
        for menu, choose in (
            (self.source, state.choose_source),
            (self.figure, state.choose_figure),
            (self.task, state.choose_task),
        ):
            menu.param.watch(lambda event, choose=choose: choose(event.new), "value")
        state.param.watch(lambda *_: self.refresh(), ["source", "figure", "task"])
        self.refresh()

    def refresh(self) -> None:
        """Follow the state."""
        state = self.state
        figures = {FIGURES[key].title: key for key in state.pictures}
        _follow(self.source, {name: name for name in state.sources}, state.source)
        _follow(self.figure, figures, state.figure)
        _follow(self.task, {name: name for name in state.pictures.get(state.figure, {})}, state.task)
        note = f"{FIGURES[state.figure].note} {INTRODUCTION}" if state.picture else ""
        self.note.object = (
            f"<div style='font-size:13px;line-height:1.45'>{note}</div><div data-test='summary' "
            f"style='font-size:12px;line-height:1.45;opacity:.8;margin-top:8px'>{escape(state.summary)}</div>"
        )

    def layout(self) -> list:
        """The parts for the sidebar."""
        return [self.source, self.figure, self.task, self.note]


def _follow(menu: pn.widgets.Select, options: dict[str, str], value: str | None) -> None:
    if menu.options != options:
        menu.param.update(options=options, value=value)
    elif menu.value != value:
        menu.value = value


class Studies:
    """The page of one session."""

    def __init__(self, state: StudiesState | None = None):
        problems: list[str] = []
        if state is None:
            sources, problems = find_sources()
            state = StudiesState(sources)
        self.state = state
        arguments = {name: values[-1].decode("utf-8", "replace") for name, values in pn.state.session_args.items()}
        problems += restore(state, arguments)
        self.address = Address()
        state.param.watch(lambda *_: self._tell_address(), ["source", "figure", "task", "chosen"])
        self._tell_address()
        self.menus, self.charts, self.details = StudyMenus(state), StudyCharts(state), RunDetails(state)
        self.said, self.table = Html(margin=(0, 0, 8, 0)), RunTable(state)
        state.param.watch(lambda *_: self._say(), ["source", "figure", "task"])
        self._say()
        self.notice = Html("".join(map(text.message, problems)))

    def _say(self) -> None:
        picture = self.state.picture
        words = said(picture) if picture else ""
        style = "font-size:clamp(14px,.6vw + 7px,18px);line-height:1.4;margin:4px 0"
        self.said.object = f"<p data-test='said' style='{style}'>{escape(words)}</p>"

    def _tell_address(self) -> None:
        self.address.query = own_query(query_of(self.state))

    def page(self) -> pn.viewable.Viewable:
        """The whole page."""
        empty = Html(_no_records(), margin=(10, 0), visible=not self.state.sources)
        return dashboard_page(
            title=TITLE,
            header=[pn.pane.HTML(text.page_link("explore", address_of("explore")), margin=(0, 10))],
            sidebar=self.menus.layout() if self.state.sources else [],
            sidebar_open=bool(self.state.sources) and "Mobi" not in pn.state.headers.get("User-Agent", ""),
            sidebar_width=320,
            main=[
                pn.Column(
                    self.address,
                    self.notice,
                    self.said,
                    empty,
                    pn.Row(
                        column(self.charts.column, self.table, share="3 1 420px"),
                        self.details.column,
                        styles=ALL_WIDE,
                        **WIDE,
                    ),
                    sizing_mode="stretch_width",
                    margin=(4, 14),
                    styles={"max-height": "none"},
                )
            ],
        )


def _no_records() -> str:
    return (
        "<div data-test='empty' style='font-size:14px;line-height:1.6'><b>There are no results yet.</b> This makes "
        "those of Question 1, in minutes on two cores; they appear here when the page is loaded again:"
        f"<pre style='padding:8px 10px;border-radius:4px;background:{COLOURS['ground']};user-select:all'>"
        f"{escape(HOW_TO_START)}</pre>Records are looked for in <code>{DEFAULT_RECORDS}</code>, or in the folder that "
        f"<code>{RECORDS_VARIABLE}</code> names, and tables in <code>runs/*/records.csv</code>.</div>"
    )
