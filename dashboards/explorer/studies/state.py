"""What the studies page shows, without any display: whose results, which figure, which task, and the run chosen."""

from __future__ import annotations

import param

from .charts import Picture, Pictures
from .figures import FIGURES
from .records import Source, by_architecture
from .runs import Details, details_of


class StudiesState(param.Parameterized):
    """What the page shows: whose results, which figure, which task, and the run that was chosen.

    Args:
        sources: results by name.
    """

    source = param.String(default=None, allow_None=True, doc="key of the sources")
    figure = param.String(default=None, allow_None=True, doc="key of FIGURES")
    task = param.String(default=None, allow_None=True, doc="key of the figure's pictures")
    chosen = param.String(default=None, allow_None=True, doc="identity of the run that is opened")
    gone = param.Dict(default={}, doc="parts of the address, by name, that are not here")

    def __init__(self, sources: dict[str, Source]):
        super().__init__()
        self.sources = sources
        self._pictures: dict[str, Pictures] = {}
        self._set(next(iter(sources), None), None, None)
        self.param.watch(lambda *_: self.param.update(gone={}), ["source", "figure", "task", "chosen"])

    def choose_source(self, name: str) -> bool:
        """Change the results; figure and task stay where these have them. False where there are no such."""
        if found := name in self.sources:
            self._set(name, self.figure, self.task)
        return found

    def choose_figure(self, key: str) -> bool:
        """Change the figure; the task stays where it has it."""
        if found := key in self.pictures:
            self._set(self.source, key, self.task)
        return found

    def choose_task(self, name: str) -> bool:
        """Change the task."""
        if found := name in self.pictures.get(self.figure, {}):
            self._set(self.source, self.figure, name)
        return found

    def open(self, identity: str | None) -> bool:
        """Open a run that is drawn, or none."""
        picture = self.picture
        if found := identity is None or (picture is not None and identity in picture.records):
            self.chosen = identity
        return found

    @property
    def pictures(self) -> dict[str, Pictures]:
        """Pictures by figure and task: of the figures for which the chosen results have records."""
        return self._pictures

    @property
    def picture(self) -> Picture | None:
        """What is drawn."""
        return self._pictures.get(self.figure, {}).get(self.task)

    @property
    def details(self) -> Details | None:
        """All about the run that is opened."""
        picture = self.picture
        if picture is None or self.chosen not in picture.records:
            return None
        return details_of(picture.records[self.chosen], FIGURES[self.figure], self.sources[self.source].budget)

    @property
    def summary(self) -> str:
        """What the picture shows, and from what; empty where there is none."""
        picture = self.picture
        if picture is None:
            return ""
        source, records = self.sources[self.source], list(picture.records.values())
        hardware = sorted({str(record["hardware"]) for record in records if record.get("hardware")})
        text = f"{len(records)} runs " + (f"of the budget {source.budget}." if source.budget else "with own settings.")
        test = records[0]
        if test.get("test") and test.get("test_resolution"):
            n = test["test_resolution"]
            text += f" Errors are means over {test['test']:,} test examples at {n} x {n}."
        text += f" They were computed on {'; '.join(hardware)}." if hardware else ""
        if source.superseded:
            text += f" {source.superseded} older records of the same points are not drawn."
        return text

    def _set(self, source: str | None, figure: str | None, task: str | None) -> None:
        """Change all in one step, to what there is."""
        if source != self.source:
            records = self.sources[source].records
            compared = by_architecture(records)
            rest = [record for record in records if record not in compared]
            found = {
                key: figure.pictures(compared if key == "architectures" else rest) for key, figure in FIGURES.items()
            }
            self._pictures = {key: pictures for key, pictures in found.items() if pictures}
        figure = figure if figure in self._pictures else next(iter(self._pictures), None)
        tasks = self._pictures.get(figure, {})
        task = task if task in tasks else next(iter(tasks), None)
        moved = (source, figure, task) != (self.source, self.figure, self.task)
        self.param.update(source=source, figure=figure, task=task, **({"chosen": None} if moved else {}))
