"""The page of given fields: operators of somebody's own file, and the test examples of that file one by one.

No equation is asked for. Of the file that the chosen operator was trained on last the test split is shown, which its
card knows, and of any other file all examples; beside the operator stand those of the same fields that saw none of
them.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from threading import Event
from urllib.parse import urlencode

import numpy as np
import panel as pn
import panel_material_ui as pmui
import torch
from PIL import Image

from sciml_fm_core.data.fields import FieldsFile
from sciml_fm_core.data.given import Reader, digest_of_path
from sciml_fm_core.data.own import find_layout, open_splits, trained_on
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.files import user_path
from sciml_fm_core.models.operator import Operator, read_header

from . import text
from .bundles import DATA_VARIABLE, SCRATCH, Bundle, find_bundles
from .colours import COLOURS
from .pages import Address, address_of, dashboard_page, own_query
from .parts import WIDE, Html, Select, WholeInput, column, show
from .session_loop import SessionLoop
from .shared import shared_operator
from .stage import Stage
from .workers import FRAMES, SWEEPS, Background

TITLE = "Own data: test examples of given fields"
MOST_COLUMNS = 4
"""Operators beside each other."""
PART = 64
"""Examples that are predicted at once."""
FIELD, ERROR = Stage.scales["solution"], Stage.scales["error"]
DECADES = ("−100 %", "−10 %", "−1 %", "±0.1 %", "+1 %", "+10 %", "+100 %")
COLOUR_OF = {"pre-trained": COLOURS["pretrained"], "fine-tuned": COLOURS["finetuned"], SCRATCH: COLOURS["scratch"]}
HOW_TO_START = """<p>No operator of your own data is here. From a file of fields, such as <b>own.npz</b>:</p>
<pre>sciml-fm info own.npz
sciml-fm pretrain --data own.npz --inputs a --targets u --output own.safetensors
sciml-fm explore own.safetensors</pre>"""
STYLE = """.walk { --above: 140px; --bar: 0px; --dial: 0px; --line: 0px; --tabs: 8px }
.walk img { width: 100%; height: 100%;
image-rendering: pixelated; display: block } .walk .words { line-height: 1.5; padding-top: var(--head) }
@container stage (max-width: 700px) { .walk .words { order: 9 } }"""
"""Beside the style of the stage, whose form the page has."""


# What there is to show ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walk:
    """Examples to walk through, and the operators that predict them.

    Attributes:
        name: of the file.
        examples: that none of the operators was trained on.
        said: what the examples are, in words.
        bundles: the operators by their names, the chosen one among them.
        digest: of the file.
    """

    name: str
    examples: Reader
    said: str
    bundles: dict[str, Bundle]
    digest: str


def open_walk(chosen: Bundle, bundles: Sequence[Bundle]) -> Walk:
    """The test examples of the file that an operator was trained on last, and the operators that may be shown on them.

    Raises:
        ValueError: if the file is not here, is another one than that, or is not readable.
    """
    card = read_header(chosen.path).card
    path = _find_data(chosen, card)
    layout = trained_on(path, card)
    examples: Reader
    if layout is not None:
        examples, said = open_splits(path, layout)["test"], "test examples that the training did not see"
    elif path in _named_files():
        examples, said = FieldsFile(path, find_layout(path, {}, card)), "examples, all of the file"
    else:
        raise ValueError(
            f"{path.name} beside the operator is not the file that it was trained on; name the one to show by "
            f"sciml-fm explore {chosen.path.name} --data FILE"
        )
    alike = {}
    for each in bundles:
        own = read_header(each.path).card
        before = trained_on(path, own)
        unseen = before is None or (layout is not None and (before.splits, before.seed) == (layout.splits, layout.seed))
        if each.systems == chosen.systems and unseen:
            alike[each.name] = each
    order = [chosen, *(each for each in alike.values() if each is not chosen)][:MOST_COLUMNS]
    kinds = list(COLOUR_OF)
    order.sort(key=lambda each: kinds.index(each.kind) if each.kind in kinds else len(kinds))
    return Walk(
        path.name, examples, f"{examples.size} {said}", {each.name: each for each in order}, digest_of_path(path)
    )


def _named_files() -> list[Path]:
    return [user_path(name) for name in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if name]


def _find_data(bundle: Bundle, card: dict) -> Path:
    """The file that is asked for, or the one that the card names, beside the operator or in the server's folder."""
    named = [card.get("downstream_data"), *(card["data"] if isinstance(card.get("data"), list) else [])]
    names = [Path(str(one["file"])).name for one in named if isinstance(one, dict) and "file" in one]
    asked = _named_files()
    for path in [*asked, *(folder / name for name in names for folder in (bundle.path.parent, Path.cwd()))]:
        if path.exists() and (len(asked) < 2 or path.name in names):
            return path
    raise ValueError(
        f"{names[0] if names else 'the file'}, on which {bundle.name} was trained, is not here; put it beside the "
        f"operator, or name it by sciml-fm explore {bundle.path.name} --data FILE"
    )


@dataclass(frozen=True)
class Step:
    """One example: fields by name, scalars, and for each operator its predicted fields and their relative error."""

    inputs: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    scalars: dict[str, float]
    predicted: dict[str, dict[str, np.ndarray]]
    errors: dict[str, float]


@torch.inference_mode()
def step_of(walk: Walk, index: int, operators: dict[str, Operator]) -> Step:
    """Read an example and predict it."""
    example, system = walk.examples.take(index), next(iter(operators.values())).systems[0]
    predicted = {name: one.predict(example.source, example.coefficients, system) for name, one in operators.items()}
    return Step(
        inputs=_fields(system.inputs, example.source),
        truth=_fields(system.outputs, example.solution),
        scalars=dict(zip(system.coefficient_names, example.coefficients.tolist(), strict=True)),
        predicted={name: _fields(system.outputs, values) for name, values in predicted.items()},
        errors={
            name: relative_error(values, example.solution).mean().item() for name, values in predicted.items()
        },
    )  # fmt: skip


def _fields(names: Sequence[str], values: torch.Tensor) -> dict[str, np.ndarray]:
    return dict(zip(names, values.reshape(-1, *values.shape[-2:]).numpy(), strict=True))


@torch.inference_mode()
def all_errors(walk: Walk, operator: Operator) -> np.ndarray:
    """Relative errors of an operator on every example, the mean of those of its fields."""
    found = []
    for start in range(0, walk.examples.size, PART):
        part = walk.examples.take(slice(start, start + PART))
        off = relative_error(operator.predict(part.source, part.coefficients, operator.systems[0]), part.solution)
        found.append(off.reshape(part.size, -1).mean(dim=1).numpy())
    return np.concatenate(found)


# How it is shown ------------------------------------------------------------------------------------------------------


def picture(values: np.ndarray, low: float, high: float, colours: Sequence[str], says: str) -> str:
    """A field as an image of the page, row 0 at the bottom; values beyond the range have the colours of its ends."""
    share = np.nan_to_num((values - low) / ((high - low) or 1.0)).clip(0, 1)
    image = Image.fromarray((share[::-1] * (len(colours) - 1)).round().astype(np.uint8), mode="P")
    image.putpalette(b"".join(bytes.fromhex(colour[1:7]) for colour in colours))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{escape(says, quote=True)}' src='data:image/png;base64,{data}'>"


def _column(title: str, body: str, note: str = "", color: str = "", kind: str = "column", test: str = "") -> str:
    """A field with its heading, as the stage has them."""
    swatch = f"<span class='swatch' style='border-top: 3px solid {color}'></span>" if color else ""
    test, says = escape(test, quote=True), escape(title, quote=True)
    return (
        f"<section class='{kind}' data-test='{test}'><div class='head' title='{says}'><h3>{swatch}{escape(title)}</h3>"
        f"{note}</div><div class='field'>{body}</div></section>"
    )


def _bar(name: str, colours: Sequence[str], ticks: Sequence[str]) -> str:
    """The colours of fields with their values, as the stage has them."""
    says = "".join(f"<span style='bottom: {100 * i / (len(ticks) - 1):.1f}%'>{t}</span>" for i, t in enumerate(ticks))
    ground = f"background: linear-gradient(to top, {','.join(colours[::5])})"
    return f"<div class='scaled'><div class='head'>{name}</div><div class='scale' style='{ground}'>{says}</div></div>"


def _range(values: np.ndarray) -> tuple[float, float, str]:
    low, high = float(values.min()), float(values.max())
    return low, high, f"<small>{low:.3g} to {high:.3g}</small>"


def as_html(walk: Walk, step: Step, output: str, words: str) -> str:
    """The inputs, the truth and the predictions of one output field, and their errors, in the form of the stage."""
    cells, below, grey = [], [], COLOURS["exact"]
    for name, values in step.inputs.items():
        low, high, said = _range(values)
        cells.append(_column(f"Input {name}", picture(values, low, high, FIELD, f"input {name}"), said))
    truth = step.truth[output]
    low, high, said = _range(truth)
    cells.append(_column(f"Truth {output}", picture(truth, low, high, FIELD, f"true {output}"), said, grey))
    size = float(np.sqrt(np.mean(np.square(truth)))) or 1.0
    for name, fields in step.predicted.items():
        bundle, values = walk.bundles[name], fields[output]
        number = f"<div class='big' data-test='error'>{text.percent(step.errors[name])}</div>"
        body = picture(values, low, high, FIELD, f"{name}: {output}")
        cells.append(_column(name, body, number, COLOUR_OF.get(bundle.kind, grey), test="prediction"))
        off = (values - truth) / size
        shown = np.sign(off) * (np.log10(np.abs(off).clip(1e-3, 1)) + 3) / 3
        body = picture(shown, -1, 1, ERROR, f"error of {name}")
        below.append(_column("Error", body, f"<small>{escape(bundle.kind)}</small>", kind="misfit"))
    first, columns = len(step.inputs) + 1, len(step.inputs) + 1 + len(step.predicted)
    scalars = "".join(f"{escape(name)} = {value:.4g}<br>" for name, value in step.scalars.items())
    values_bar = _bar(escape(output), FIELD, [f"{value:.2g}" for value in (low, (low + high) / 2, high)])
    return (
        f"<div class='operator-stage walk'><div class='main'><div class='columns' style='--count: {columns}'>"
        f"{''.join(cells)}{values_bar}<div class='words' style='grid-column: span {first}'>{scalars}{words}</div>"
        f"{''.join(below)}{_bar(f'of rms {escape(output)}', ERROR, DECADES)}</div></div></div>"
    )


class OwnData:
    """The page of one session."""

    def __init__(self, bundles: dict[str, Bundle] | None = None):
        found, problems = find_bundles() if bundles is None else (bundles, [])
        self.bundles = {name: one for name, one in found.items() if not one.is_known}
        asked = {name: values[-1].decode("utf-8", "replace") for name, values in pn.state.session_args.items()}
        tuned = [name for name, one in self.bundles.items() if one.kind == "fine-tuned"]
        start = (
            asked.get("operator")
            if asked.get("operator") in self.bundles
            else next(iter([*tuned, *self.bundles]), None)
        )
        self.walk: Walk | None = None
        self._step: Step | None = None
        self._errors: dict[str, np.ndarray] = {}
        self.loop, self.address = SessionLoop(), Address()
        self._steps, self._sweeps = Background(FRAMES, self.loop.call), Background(SWEEPS, self.loop.call)
        self.operator = Select(label="Operator", options=list(self.bundles), value=start, width=300)
        self.example = WholeInput(label="Example", value=1, start=1, end=1, width=90)
        self.output = Select(label="Field", options=[], width=160, visible=False)
        move = partial(pmui.Button, variant="outlined", width=90, margin=(22, 4, 0, 4))
        self.buttons = [move(label=label) for label in ("Previous", "Next", "Worst")]
        for button, act in zip(
            self.buttons, (partial(self._move, -1), partial(self._move, 1), self._worst), strict=True
        ):
            button.on_click(lambda _, act=act: act())
        self.notice, self.about = Html("".join(map(text.message, problems))), Html()
        self.fields = Html(stylesheets=[Stage.style, STYLE], margin=0)
        self.operator.param.watch(lambda *_: self.open(), "value")
        self.example.param.watch(lambda *_: self.request(), "value")
        self.output.param.watch(lambda *_: self._paint(), "value")
        pn.state.on_session_destroyed(lambda _: self.close())
        self.open(_number(asked.get("example")))

    def close(self) -> None:
        """The session is over."""
        for one in (self._steps, self._sweeps):
            one.end()
        self.loop.close()

    def open(self, example: int = 1) -> None:
        """Open the examples of the operator that is chosen."""
        self.walk, self._step, self._errors = None, None, {}
        self._sweeps.end()
        if self.operator.value is None:
            show(self.fields, HOW_TO_START)
            return
        chosen = self.bundles[self.operator.value]
        try:
            self.walk = open_walk(chosen, list(self.bundles.values()))
        except (ValueError, OSError) as error:
            show(self.notice, text.message(str(error)))
            show(self.fields, "")
            return
        show(self.notice, "")
        show(
            self.about,
            f"<div data-test='about'>{escape(f'{self.walk.name}: {self.walk.said}. {chosen.history}.')}</div>",
        )
        self.example.param.update(end=self.walk.examples.size, value=min(example, self.walk.examples.size))
        self._sweeps.begin(self._measure, self.walk)
        self.request()

    def request(self) -> None:
        """Show the example that is asked for."""
        self.address.query = own_query(urlencode({"operator": self.operator.value, "example": self.example.value}))
        if self.walk is not None:
            self._steps.begin(self._find, self.walk, self.example.value - 1)

    def _find(self, walk: Walk, index: int, stop: Event) -> None:
        try:
            operators = {name: shared_operator(bundle) for name, bundle in walk.bundles.items()}
            step = step_of(walk, index, operators)
        except (ValueError, OSError) as error:
            self._steps.show(stop, show, self.notice, text.message(str(error)))
        else:
            self._steps.show(stop, self._found, step)

    def _measure(self, walk: Walk, stop: Event) -> None:
        for name, bundle in walk.bundles.items():
            if stop.is_set():
                return
            key = f"errors of {bundle.version} on {walk.digest} {walk.said}"
            errors = pn.state.as_cached(key, partial(all_errors, walk, shared_operator(bundle)))
            self._sweeps.show(stop, self._measured, name, errors)

    def _measured(self, name: str, errors: np.ndarray) -> None:
        self._errors[name] = errors
        self._paint()

    def _found(self, step: Step) -> None:
        self._step = step
        names = list(step.truth)
        if self.output.options != names:
            self.output.param.update(options=names, value=names[0], visible=len(names) > 1)
        self._paint()

    def _paint(self) -> None:
        if self.walk is None or self._step is None:
            return
        words = "".join(
            f"{escape(name)}: median {text.percent(float(np.median(off)))}, worst {text.percent(float(off.max()))} "
            f"(example {int(off.argmax()) + 1})<br>"
            for name, off in self._errors.items()
        )
        output = self.output.value or next(iter(self._step.truth))
        show(self.fields, as_html(self.walk, self._step, output, words))

    def _move(self, by: int) -> None:
        self.example.value = (self.example.value - 1 + by) % self.example.end + 1

    def _worst(self) -> None:
        if self.operator.value in self._errors:
            self.example.value = int(self._errors[self.operator.value].argmax()) + 1

    def page(self) -> pmui.Page:
        """The whole page."""
        controls = pn.Row(self.operator, self.example, *self.buttons, self.output, visible=bool(self.bundles), **WIDE)
        controls.styles = {"flex-wrap": "wrap", "min-width": "0"}  # on a phone
        return dashboard_page(
            title=TITLE,
            header=[pn.pane.HTML(text.page_link("explore", address_of("explore")), margin=(0, 10))],
            sidebar=[],
            main=[column(self.address, self.notice, controls, self.about, self.fields, margin=(4, 10))],
        )


def _number(said: str | None) -> int:
    return max(1, int(said)) if said and said.isdecimal() and len(said) < 10 else 1
