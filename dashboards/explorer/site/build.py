"""The folder of the static page: graphs, weights, first frames, and all words and numbers that do not follow a hand."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors.torch import load_file

from explorer import text
from explorer.bundles import Bundle, find_bundles, pretraining_range
from explorer.compute import Query, compute, frame_message, is_drawn_as_gaussians, make_source, painted_fields
from explorer.error_curves import along, mean_at, mean_errors, sweep_amplitudes
from explorer.films import Film
from explorer.insight import ATLAS_SHAPE, MAX_WAVENUMBER, atlas, examples_curve, tried_among
from explorer.lesson_card import LessonCard
from explorer.lessons import find_lessons
from explorer.link import query_of, result_name
from explorer.setup import setup_message
from explorer.shared import shared_operator, shipped_results
from explorer.stage import BROWSER, SCRIPTS, Stage, pack
from explorer.state import ExploreState, midpoint, opening_dial
from sciml_fm_core._version import __version__
from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.rollouts import CORRELATED
from sciml_fm_core.experiments.learned_symbol import half_plane
from sciml_fm_core.files import atomic_path
from sciml_fm_core.models.export import export_function
from sciml_fm_core.models.operator import Operator, read_header, shipped_adaptations, shipped_operators
from sciml_fm_core.models.packed import unzipped
from sciml_fm_core.models.steps import steps_alike
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.sources import PRESETS, draw_amplitudes
from sciml_fm_core.physics.spectral_system import SpectralSystem
from sciml_fm_core.physics.system import SYSTEMS, System
from sciml_fm_core.physics.variable_system import VariableSystem

from . import graphs
from .runtime import copy_runtime

HERE = Path(__file__).parent
PAGES = ("index.html", "feeder.js", "files.js", "worker.js", "glue.js")
PARTS = ("runtime", "graphs", "weights", "frames", "sources")
"""Folders that the site is made of, besides files at its top."""
MOVING, RESTING = 64, 128
"""Points of a frame while the dial moves, and at rest."""
SEEDS, SPARSITIES = range(24), tuple(round(0.05 * i, 2) for i in range(20))
"""The random sources that the page has; their amplitudes are drawn here."""
SIZES = 2
"""The page has the fine-tunings that lessons name, and of the others those on few examples, up to so many."""
LEFT_OUT = ("mixed", "sys-1-symbol")
"""Operators that the page has no room for."""
STATES = range(6)
"""Seeds of initial states of evolutions, which are here as they are; of coefficients that are fields the first four."""
TOLERANCES = 1e-5, 1e-8
"""Relative residual to which a solver iterates while the dial moves, and at rest, as `VariableSystem.solved` does."""
ITERATIONS = 1000
"""Iterations after which it gives up."""
STEPPING = "step"
"""Normalisation of the operators that take the steps of evolutions here."""
LARGEST_DIFFERENCE = 1e-4
"""Relative difference to PyTorch above which a graph is not written; errors are shown in two digits."""
TRACED = (32, 34, 42)
"""Points of the grids that a graph for all grids is traced with, see `export_function`."""
EXAMPLES = 3
"""Examples that each graph is traced and checked with."""
COMMON, OF_SYSTEM = (
    ("systems", "predictors"),
    ("equation", "dial", "resonances", "names", "steps", "further", "coefficients"),
)
"""Entries of the message of the controls that are the same for all systems, and for all models of one."""


def write_site(
    folder: Path, runtime: Path | None = None, systems: Sequence[str] = (), tell: Callable[[str], None] = print
) -> int:
    """Write the folder, and give its size in bytes.

    Args:
        folder: where; it is made, and files of an earlier site are replaced, or deleted.
        runtime: a folder with the files `RUNTIME` of onnxruntime-web; of npm's package where None.
        systems: names of those to have; all that can be computed in a browser where there are none.
        tell: called with what is done next.

    Raises:
        ValueError: if a system is not there or cannot be computed in a browser, or the runtime is not to be had.
    """
    chosen = [SYSTEMS[name] for name in systems or SYSTEMS if systems or is_offered(SYSTEMS[name])]
    if bad := [each.name for each in chosen if not is_computed(each)]:
        raise ValueError(
            f"site: expected systems that a symbol, ETDRK4 or a Krylov method solves, got "
            f"{', '.join(bad)}; leave them out"
        )
    earlier = (folder / "page.json.gz").is_file()  # else what is there is somebody's own
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
        for path in (folder / part).glob("*.gz") if earlier else ():
            path.unlink()
    copy_runtime(folder / "runtime", runtime)
    site = Site(folder, chosen, tell)
    site.write()
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def is_computed(system: System) -> bool:
    """Whether a browser can solve it: by its symbol, step by step by that and ETDRK4, or by a Krylov method."""
    fields = isinstance(system, VariableSystem)
    return steps_alike(system) if isinstance(system, Evolution) else fields or is_drawn_as_gaussians(system)


def is_offered(system: System) -> bool:
    """Whether the page has it where none is named: an evolution if a lesson is about it."""
    return is_computed(system) and (not isinstance(system, Evolution) or system.name in str(find_lessons()[0]))


class Site:
    """One folder in the making.

    Args:
        folder, systems, tell: as those of `write_site`.
    """

    def __init__(self, folder: Path, systems: Sequence[System], tell: Callable[[str], None]):
        self.folder, self.systems, self.tell = folder, systems, tell
        bundles, _ = find_bundles()
        shipped = {name: bundle for name, bundle in bundles.items() if bundle.shipped and name not in LEFT_OUT}
        asked, kept = str(find_lessons()[0]), {}
        for owner, results in shipped_results().items():
            named = f"&model={owner[1]}&" in asked
            chosen = [key for key, one in results.items() if named and f"&result={result_name(one)}" in asked]
            fewest = sorted(results, key=lambda key: results[key].settings.examples)
            chosen += [key for key in fewest if key not in chosen][: max(0, SIZES - len(chosen))]
            kept[owner] = {key: result for key, result in results.items() if key in chosen}
        self.state = ExploreState(shipped, shared_operator, kept=kept)
        self.operators: dict[str, Operator] = {}
        self.networks: dict[str, str] = {}  # graph by what it is made of
        self.page: dict[str, Any] = {"weights": {}, "networks": {}, "systems": {}, "curves": {}, "atlas": {}}

    def write(self) -> None:
        """Write all files."""
        for name in PAGES:
            shutil.copyfile(HERE / name, self.folder / name)
        script = "\n".join((BROWSER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
        (self.folder / "stage.js").write_text(script, encoding="utf-8")
        for n in (MOVING, RESTING):
            amplitudes = torch.rand(EXAMPLES, 12, 12, generator=torch.Generator().manual_seed(0))
            self.graph(f"random-{n}", graphs.random_source(n), {"amplitudes": amplitudes}, graphs.SOURCES)
            rows = amplitudes[:, 0, :3].double()
            self.graph(f"drawn-{n}", graphs.drawn_source(n), {"rows": rows}, graphs.SOURCES)
            if any(map(painted_fields, self.systems)):
                self.graph(f"painted-{n}", graphs.painted_field(n), {"rows": rows}, ["field"])
        every = half_plane(MAX_WAVENUMBER)
        few, fields = every[:EXAMPLES].double(), torch.randn(EXAMPLES, RESTING, RESTING)
        self.graph("waves", graphs.waves(MOVING), {"wavevectors": few}, graphs.WAVES)
        waves = graphs.waves(MOVING)({}, few)
        given = dict(zip(graphs.WAVES, waves, strict=True)) | {"wavevectors": few, "exact": few + 0.5}
        self.graph("projection", graphs.projection, given, graphs.PROJECTED)
        self.graph("energy", graphs.energy, {"fields": fields}, ["energy"])
        self.page["spectrum"] = {
            "last": MAX_WAVENUMBER, "waves": every.tolist(), "tried": tried_among(every).tolist(),
        }  # fmt: skip
        if any(isinstance(system, Evolution) for system in self.systems):
            states = torch.randn(2, EXAMPLES, MOVING, MOVING, generator=torch.Generator().manual_seed(0)).unbind()
            given = dict(zip(("prediction", "solution"), states, strict=True))
            self.graph("compare", graphs.compare, given, graphs.COMPARED)
        for system in self.systems:
            self.add_system(system)
        amplitudes = [
            draw_amplitudes(torch.tensor([sparsity]), stream(seed, "explore"))
            for seed in SEEDS
            for sparsity in SPARSITIES
        ]
        amplitudes.append(sweep_amplitudes(self.systems[0], stream(0, "explore", "sweep"))[0])
        self.binary("amplitudes", by_bytes(torch.cat(amplitudes)))
        self.state.choose_system(self.systems[0].name)
        parameters = {name: Stage.param[name].default for name in ("style", "colours", "scales", "texts")}
        atlas_text = f"{parameters['texts']['atlas']} Other parameters and the sparsity are as the page opens."
        parameters["texts"] = parameters["texts"] | {"atlas": atlas_text}
        message = setup_message(self.state)
        known = {system.name for system in self.systems}
        self.page |= {
            "component": parameters,
            "common": {name: message[name] for name in COMMON},
            "opens": self.systems[0].name,
            "version": __version__,
            "sentence": text.SENTENCE,
            "points": [MOVING, RESTING],
            "seeds": [*SEEDS],
            "sparsities": SPARSITIES,
            "presets": PRESETS,
            "film": text.FILM,
            "correlated": CORRELATED,
            "lessons": self.lessons(),
        }
        self.page["common"]["systems"] = [each for each in message["systems"] if each["value"] in known]
        self.binary("page.json", json.dumps(self.page, allow_nan=False, ensure_ascii=False).encode())

    def binary(self, name: str, content: bytes) -> None:
        """Write a compressed file."""
        with atomic_path(self.folder / f"{name}.gz") as partial:
            partial.write_bytes(gzip.compress(content, 9, mtime=0))

    def graph(
        self, name: str, function: graphs.Function, given: dict | list[dict], results: Sequence[str], weights=None
    ) -> None:
        """Write a graph, compressed."""
        self.tell(name)
        path = self.folder / "graphs" / f"{name}.onnx"
        export_function(function, path, given, results, weights, LARGEST_DIFFERENCE)
        self.binary(f"graphs/{path.name}", path.read_bytes())
        path.unlink()

    # Systems and operators ------------------------------------------------------------------------------------------

    def add_system(self, system: System) -> None:
        """Write what one system needs, and a frame to begin with."""
        state = self.state
        state.choose_system(system.name)
        if isinstance(system, Evolution):
            self.add_solver_in_time(system)
        elif isinstance(system, VariableSystem):
            self.add_iterations(system)
        else:
            self.add_solver(system)
        message = setup_message(state)
        entry = self.page["systems"][system.name] = {
            "setup": {name: message[name] for name in OF_SYSTEM if name in message},
            "model": self.model_for(system),
            "zero_mean": system.zero_mean,
            "limit": system.max_solution,
            "parameters": [
                {
                    "name": each.name, "title": each.title, "help": each.help, "angle": each.angle, "low": each.low,
                    "high": each.high, "most": max(each.high, each.period) if each.angle else each.high,
                    "step": each.step, "default": each.default,
                }
                for each in system.parameters
            ],
            "models": {bundle.name: self.model(system, bundle.name) for bundle in self.bundles_of(system)},
        }  # fmt: skip
        state.choose_system(system.name)
        state.choose_bundle(entry["model"])
        if isinstance(system, Evolution):
            header, arrays = Film(replace(state.query(), resolution=MOVING)).message()
            entry["time"], entry["substeps"] = graphs.timing(system)
            entry["needed"] = graphs.taken(system)
            self.states(entry, replace(state.query(), resolution=MOVING), STATES)
        else:
            chosen = entry["models"][state.bundle_name]["operators"]["zero_shot"]
            mean = mean_at(state.dial, self.page["curves"][system.name][chosen])
            header, arrays = frame_message(compute(replace(state.query(), resolution=RESTING)), mean)
            if isinstance(system, VariableSystem):
                entry |= {"fields": system.inputs, "iterations": ITERATIONS, "tolerances": TOLERANCES}
                self.states(entry, replace(state.query(), dial=system.dialled.high, resolution=RESTING), STATES[:4])
            else:
                entry["sweep"] = sweep_amplitudes(system, stream(0, "explore", "sweep"))[1].flatten().tolist()
        self.binary(f"frames/{system.name}", pack({"kind": "frame", **header}, arrays))

    def states(self, entry: dict[str, Any], query: Query, seeds: Sequence[int]) -> None:
        """Write what is random and is not drawn in the browser, for each of the seeds."""
        states = torch.stack([make_source(replace(query, seed=seed)) for seed in seeds])
        entry["seeds"] = [*seeds]
        self.binary(f"sources/{query.system.name}", by_bytes(states))

    def model_for(self, system: System) -> str:
        """The model that a system opens with."""
        names = [each.name for each in self.bundles_of(system)]
        return self.state.bundle_name if self.state.bundle_name in names else names[0]

    def bundles_of(self, system: System) -> list[Bundle]:
        """Models of a system that the page has."""
        found = self.state.bundles_of(system)
        return [each for each in found if each.normalization == STEPPING or not isinstance(system, Evolution)]

    def examples(self, system: System, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sources, values of the dial, and parameters, to trace with and to check."""
        parameters = torch.tensor([[each.default for each in system.parameters]], dtype=torch.float64)
        parameters = parameters.expand(EXAMPLES, -1)
        low, high = pretraining_range(system)
        dial = torch.linspace(low, high, EXAMPLES, dtype=torch.float64)
        if not is_drawn_as_gaussians(system):
            return system.draw(dial, parameters, (n, n), stream(0, "explore")).float(), dial, parameters
        amplitudes = draw_amplitudes(torch.full((EXAMPLES,), 0.5), stream(0, "explore"))
        return graphs.random_source(n)({}, amplitudes)[system.zero_mean], dial, parameters

    def add_solver(self, system: SpectralSystem) -> None:
        """Write what solves a system, and what measures its predictions."""
        solve, given, measured = graphs.solver(system), [], []
        for n in dict.fromkeys((*TRACED, MOVING, RESTING)):
            given.append(dict(zip(("source", "dial", "parameters"), self.examples(system, n), strict=True)))
            coefficients, solution = solve({}, *given[-1].values())[:2]
            measured.append({
                "prediction": 1.1 * solution + 1e-3, "solution": solution, "source": given[-1]["source"],
                "coefficients": coefficients,
            })  # fmt: skip
        waves = half_plane(MAX_WAVENUMBER)[:EXAMPLES].double()
        asked = {"wavevectors": waves, "coefficients": coefficients}
        self.graph(f"answers-{system.name}", graphs.exact_answers(system), asked, ["exact", "strong"])
        self.graph(f"solve-{system.name}", solve, given, graphs.SOLVED)
        self.graph(f"measure-{system.name}", graphs.measure(system), measured, graphs.MEASURED)

    def add_iterations(self, system: VariableSystem) -> None:
        """Write what solves a system whose coefficients are fields, iteration by iteration, and what measures it."""
        first, iterated, own = graphs.first_iterate(system), graphs.iterated(system), slice(len(graphs.ITERATED) - 1)
        before = [f"{name}_before" for name in graphs.ITERATED[own]]
        fields, begun, kept, measured = [], [], [], []
        for n in dict.fromkeys((*TRACED, MOVING, RESTING)):
            source, dial, _ = self.examples(system, n)
            fields.append(dict(zip(system.inputs, source.unbind(1), strict=True)) | {"dial": dial})
            begun.append({"source": source})
            found = iterated({}, source, *first({}, source)[own])[own]
            kept.append({"source": source} | dict(zip(before, found, strict=True)))
            solution = system.solve(source, source.new_empty(len(source), 0))
            measured.append({"prediction": 1.1 * solution + 1e-3, "solution": solution, "source": source})
        shown = ["fields", *(f"{name}_shown" for name in system.inputs[:-1])]
        self.graph(f"varied-{system.name}", graphs.varied(system), fields, shown)
        self.graph(f"first-{system.name}", first, begun, graphs.ITERATED)
        self.graph(f"iterated-{system.name}", iterated, kept, graphs.ITERATED)
        ends = [{"source": each["source"], "iterate": each["iterate_before"]} for each in kept]
        self.graph(f"last-{system.name}", graphs.last_iterate, ends, graphs.SOLVED[1:])
        self.graph(f"measure-{system.name}", graphs.measure_fields(system), measured, graphs.MEASURED)

    def add_solver_in_time(self, system: Evolution) -> None:
        """Write what solves an evolution, step by step."""
        given = dict(zip(("source", "dial", "parameters"), self.examples(system, MOVING), strict=True))
        begun, needed = graphs.begun(system), graphs.taken(system)
        self.graph(f"begin-{system.name}", begun, given, [*graphs.BEGUN, *needed])
        coefficients, state, *found = begun({}, *given.values())
        taken = {"state": state, "coefficients": coefficients} | dict(zip(needed, found, strict=True))
        self.graph(f"advance-{system.name}", graphs.advance(system, MOVING), taken, graphs.ADVANCED)

    def model(self, system: System, name: str) -> dict[str, Any]:
        """What the page says and needs of a model and its fine-tunings."""
        state = self.state
        state.choose_system(system.name)
        state.choose_bundle(name)
        state.show(None)
        bundle, trained = state.bundles[name], state.trained_range
        message = setup_message(state)
        own = {key: value for key, value in message.items() if key not in (*COMMON, *OF_SYSTEM)}
        heads = [text.sentence(system, dial, trained, None, None, 0.0, None) for dial in system.dialled.values()]
        shown = state.latest(system.name, name)
        results = list(state.adapted.items())
        self.weights(system, name, shared_operator(bundle))
        entry = {
            "setup": own | {"ensemble": False},
            "operators": {"zero_shot": name},
            "heads": heads,
            "trained": trained is not None,
            "opening": opening_dial(system, bundle),
            "start": opening_dial(system, bundle) if shown is None else midpoint(state.adapted[shown].settings.task),
            "result": "none" if shown is None else str([key for key, _ in results].index(shown)),
            "results": {"none": {"name": "none", "operators": {}, "window": None, "given": ""}},
            "history": bundle.history_on(system),
            "examples": examples_curve(state),
        }
        operators: dict[str, Callable[[], Operator] | None] = {name: state.loader()}
        for number, result in enumerate(result for _, result in results):
            operators |= {adapted: result.operators[kind] for kind, adapted in result.names.items()}
            for kind, adapted in result.names.items():
                self.weights(system, adapted, result.operators[kind]())
            entry["results"][str(number)] = {
                "name": result_name(result),
                "operators": result.names,
                "window": (result.settings.task.low, result.settings.task.high),
                "given": result.settings.given,
            }
        self.add_atlas(replace(state.query(), operators=operators))
        return entry

    def add_atlas(self, query: Query) -> None:
        """Measure the atlas of operators, called by their names, where all that it does not vary is as it opens."""
        self.tell(f"atlas of {', '.join(query.operators)} for {query.system.name}")
        found = atlas(query, Event(), lambda _: None, shape=ATLAS_SHAPE)
        for errors in found["errors"].values():
            for row in errors:
                row[:] = [None if each is None else float(f"{each:.3g}") for each in row]
        self.page["atlas"].setdefault(query.system.name, found)["errors"] |= found["errors"]

    def weights(self, system: System, name: str, operator: Operator) -> None:
        """Write the weights of an operator, once; its graph for a system, once for all of its kind; and its curve."""
        function, weights = graphs.network(operator, system)
        form = json.dumps([system.name, operator.normalization.kind, operator.model.config.to_dict(), sorted(weights)])
        if form not in self.networks:
            self.networks[form] = f"network-{len(self.networks)}"
            grids = (MOVING,) if isinstance(system, Evolution) else dict.fromkeys((*TRACED, MOVING, RESTING))
            given = []
            for source, dial, parameters in (self.examples(system, n) for n in grids):
                given.append({"source": source})
                if system.coefficient_names:
                    given[-1]["coefficients"] = system.coefficients(dial, source.double(), parameters).float()
            self.graph(self.networks[form], function, given, ["prediction"], weights)
        self.page["networks"].setdefault(system.name, {})[name] = self.networks[form]
        if name not in self.page["weights"]:
            content, self.page["weights"][name] = stored(name, weights)
            self.binary(f"weights/{name}", content)
        curve = self.page["curves"].setdefault(system.name, {})
        if name not in curve:
            self.tell(f"curve of {name} for {system.name}")
            values = system.dialled.values() if isinstance(system, VariableSystem) else along(system)
            (errors,) = mean_errors([operator], values, system)
            pairs = zip(values, errors, strict=True)
            curve[name] = [(value, float(f"{error:.4g}")) for value, error in pairs if math.isfinite(error)]

    # Lessons --------------------------------------------------------------------------------------------------------

    def lessons(self) -> dict[str, Any]:
        """What the card says at each step, where the page is then, and the answer to each guess."""
        told: list[dict[str, Any]] = []
        found: dict[str, Any] = {"steps": {}, "score": text.SCORE}
        with ThreadPoolExecutor(1) as numbers, ThreadPoolExecutor(1) as loop:
            card = LessonCard(self.state, lambda kind, **header: told.append({"kind": kind} | header), numbers)
            found["none"] = card.offered[0]
            for name, lesson in card.lessons.items():
                self.tell(f"lesson {name}")
                card.open(name)
                steps = []
                for number, step in enumerate(lesson.steps):
                    card.show(number)
                    if self.state.gone or self.state.system not in self.systems:
                        break
                    message, at, answers = told[-1], query_of(self.state), []
                    for guess in range(len(step.choices)):
                        card.guesses.clear()
                        card.show(number)
                        loop.submit(asyncio.run, card.check(guess)).result()
                        answers.append(told[-1]["text"])
                    right, then = step.right - 1, query_of(self.state)
                    steps.append({"message": message, "at": at, "right": right, "answers": answers, "then": then})
                if len(steps) == len(lesson.steps):
                    found["steps"][name] = steps
        return found


def by_bytes(values: torch.Tensor, kind: str = "<f4") -> bytes:
    """The first bytes of all numbers, then the second ones, and so on: so they are smaller when compressed.

    >>> by_bytes(torch.tensor([1, 2]), "<i2")
    b'\\x01\\x02\\x00\\x00'
    """
    numbers = values.numpy().astype(kind).ravel()
    return numbers.view("u1").reshape(len(numbers), -1).T.tobytes()


def stored(name: str, weights: dict[str, torch.Tensor]) -> tuple[bytes, dict[str, Any]]:
    """Weights as bytes, one after another, and how they are to be read.

    Each is float32, or float16 where that holds it exactly, see `by_bytes`; or, of an operator whose bundle is packed,
    the float32 largest number of each block and shares of it in int8, of what the weight differs by from that of the
    ``parent``.
    """
    path, shares, about = (shipped_operators() | shipped_adaptations()).get(name), {}, {}
    if path and (packed := read_header(path).packed):
        shapes = {key.removeprefix("model."): tuple(value.shape) for key, value in weights.items()}
        shares, about = (
            unzipped(load_file(path), shapes, packed.block),
            {"parent": packed.parent, "block": packed.block},
        )
    parts, said = [], []
    for key, value in weights.items():
        own = key.removeprefix("model.")
        if f"{own}:shares" in shares and shares[f"{own}:shares"].dtype == torch.int8:
            kind, found = "shares", (by_bytes(shares[f"{own}:largest"]), by_bytes(shares[f"{own}:shares"], "i1"))
        elif bool((value.half().float() == value).all()):
            kind, found = "half", (by_bytes(value, "<f2"),)
        else:
            kind, found = "float", (by_bytes(value),)
        parts += found
        said.append([value.numel(), kind])
    return b"".join(parts), {"parts": said} | about
