"""Addresses: of the studies page as it is now, and of the explore page at the physics of a run."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from explorer import link
from explorer.bundles import Bundle
from explorer.settings import Adapted
from explorer.state import ExploreState, midpoint
from sciml_fm_core.physics.tasks import Task

from .state import StudiesState


def query_of(state: StudiesState) -> str:
    """The query that opens the page as it is now, as ``results=...&figure=seeds&task=SYS-1(5,10)&run=identity``."""
    values = {"results": state.source, "figure": state.figure, "task": state.task, "run": state.chosen} | state.gone
    return urlencode({name: value for name, value in values.items() if value is not None}, safe=":,()")


def restore(state: StudiesState, query: Mapping[str, str]) -> list[str]:
    """Set a state to a query, and say which of its values are not here; these stay in the address until one chooses."""
    parts = {
        "results": (state.choose_source, "source"),
        "figure": (state.choose_figure, "figure"),
        "task": (state.choose_task, "task"),
        "run": (state.open, "chosen"),
    }
    gone = {name: query[name] for name, (choose, _) in parts.items() if name in query and not choose(query[name])}
    state.gone = gone
    shown = {name: getattr(state, attribute) for name, (_, attribute) in parts.items()}
    return [
        f"{name}={text[:60]} in the address is left out: there is no such {name} here"
        + (f"; this is {shown[name]}" if shown[name] else "")
        for name, text in gone.items()
    ]


def explore_query(
    record: dict, bundles: dict[str, Bundle], kept: dict[tuple[str, str], dict[tuple, Adapted]]
) -> tuple[str, str]:
    """The query that opens the explore page nearest to a run, and what it shows there, in words.

    Args:
        record: of the run.
        bundles, kept: the operators and the fine-tunings that the explore page has, as `ExploreState` takes them.
    """
    task, parent = Task.parse(record["task"]), record.get("shipped_parent")
    state = ExploreState(bundles, kept=kept)
    state.choose_system(task.system.name)
    ships = parent in (bundle.name for bundle in state.bundles_of(task.system))
    if ships:
        state.choose_bundle(parent)
    state.set_dial(midpoint(task))
    wanted = record["examples"], task.low, task.high
    results = state.adapted.items() if ships else ()
    state.shown = next((key for key, one in results if _asked(one) == wanted), None)
    where = f"{task.system.title}, {task.system.dialled.title} = {state.dial:g}"
    words = [f"{where}, by {state.bundle_name or 'no operator'}."]
    if not ships:
        words.append("The operator of this run is not among those of the page.")
    if state.shown is not None:
        words.append("Beside it is a fine-tuning on as many examples of this range, and its twin from scratch.")
    elif record["examples"]:
        words.append(
            f"No fine-tuning on {record['examples']:,} examples of {task.label} ships, but it can be trained there."
        )
    return link.query_of(state), " ".join(words)


def _asked(adapted: Adapted) -> tuple[int, float, float]:
    settings = adapted.settings
    return settings.examples, settings.task.low, settings.task.high
