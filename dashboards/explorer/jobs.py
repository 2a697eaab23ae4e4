"""Fine-tuning in the background: one training at a time in the process, the others wait in a visible queue."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.evaluation.metrics import mean_relative_error
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.training.config import Progress, TrainConfig
from sciml_fm_core.training.recipes import LEARNING_RATES
from sciml_fm_core.training.transfer import Adaptation

from .predictions import PREDICTIONS
from .serving import LATER, LIMITS, TooMuch, lower_priority
from .settings import Adapted, AdaptSettings, Row

RESOLUTION = 64
BATCH_SIZE = 32
"""Examples of a step: a step takes as long whatever the number of examples."""
VALIDATION_COUNT = 16
TEST_COUNT = 32
PUBLISH_SECONDS = 0.15
"""Least time between two published states of a job."""
LIVE_SECONDS = 0.4
"""Least time between two copies of the operator in training."""


@dataclass(frozen=True)
class JobState:
    """What a job shows of itself.

    Attributes:
        stage: waiting, drawing examples, that of a `Predictor`, testing, done, cancelled or failed.
        ahead: jobs before it in the queue.
        fraction: how much of it is done, 0 to 1.
        seconds_left: estimate, None where there is none yet.
        curves: rows (step, loss, validation error or None) of the present learning rate, by prediction.
        operators: as the trainings have them now, copies, by prediction.
        message: why it failed.
        result: what came out of it.
    """

    stage: str = "waiting"
    ahead: int = 0
    fraction: float = 0.0
    seconds_left: float | None = None
    curves: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    message: str = ""
    result: Adapted | None = None

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.stage in ("done", "cancelled", "failed")


class Cancelled(Exception):
    """Raised inside a job when it was cancelled."""


class JobQueue:
    """Lets one job at a time through, in order of arrival; as many as ``most`` wait behind it."""

    def __init__(self, most: int = LIMITS.queue) -> None:
        self.most = most
        self._condition = threading.Condition()
        self._jobs: list[AdaptJob] = []

    def enter(self, job: AdaptJob) -> None:
        """Wait for one's turn.

        Raises:
            Cancelled: if the job was cancelled while it waited.
            TooMuch: if too many wait already.
        """
        with self._condition:
            job.check()
            waiting = len(self._jobs) - 1
            if waiting >= self.most:
                raise TooMuch(f"{waiting} trainings of other visitors wait already, as many as can: try again later.")
            self._jobs.append(job)
            while ahead := self._jobs.index(job):
                if job.state.ahead != ahead:
                    job.publish(stage="waiting", ahead=ahead)
                self._condition.wait()
                job.check()

    def look_again(self) -> None:
        """Let those that wait see at once whether they were cancelled."""
        with self._condition:
            self._condition.notify_all()

    def leave(self, job: AdaptJob) -> None:
        """Let the next one through."""
        with self._condition:
            if job in self._jobs:
                self._jobs.remove(job)
            self._condition.notify_all()


QUEUE = JobQueue()
"""The queue of the whole process, shared by all sessions."""


class AdaptJob(threading.Thread):
    """Fine-tunes a copy of an operator, then trains its from-scratch twin, and publishes its state as it goes.

    Without labels it fine-tunes only.

    Args:
        load: gives the pre-trained operator; called in the thread, the operator is not changed.
        settings: what to adapt to.
        on_state: called in this thread with each published `JobState`.
        queue: where it waits for its turn.
        seconds: how long it may take from then on.
    """

    def __init__(
        self,
        load: Callable[[], Operator],
        settings: AdaptSettings,
        on_state: Callable[[JobState], None],
        queue: JobQueue = QUEUE,
        seconds: float = LIMITS.job_seconds,
    ):
        super().__init__(name="fine-tuning", daemon=True)
        self.settings = settings
        self.state = JobState()
        self._load, self._on_state, self._queue = load, on_state, queue
        self._cancel = threading.Event()
        self._published = 0.0
        self._seconds, self._ends = seconds, math.inf

    def cancel(self) -> None:
        """Stop at the next step, or never begin; nothing is kept."""
        self._cancel.set()
        self._queue.look_again()

    def check(self) -> None:
        """Raise `Cancelled` when it was, and `TooMuch` when its time is over."""
        if self._cancel.is_set():
            raise Cancelled
        if self._late:
            raise TooMuch(
                f"A training may take {self._seconds:g} s on this server and this one took longer, nothing is kept: "
                f"ask for fewer steps, or {LATER}."
            )

    @property
    def _late(self) -> bool:
        return time.monotonic() > self._ends

    def publish(self, *, at_once: bool = True, **changes) -> None:
        """Change the state, and tell unless it was told a moment ago."""
        self.state = replace(self.state, **changes)
        now = time.monotonic()
        if at_once or now - self._published >= PUBLISH_SECONDS:
            self._published = now
            self._on_state(self.state)

    def run(self) -> None:
        """Wait, train, test; every way out ends in a published state that is over."""
        lower_priority()
        try:
            self._queue.enter(self)
            self._ends = time.monotonic() + self._seconds
            self.publish(stage="drawing examples", ahead=0)
            result = self._adapt()
            self.publish(stage="done", fraction=1.0, seconds_left=0.0, result=result, operators={})
        except Cancelled:
            self.publish(stage="cancelled", seconds_left=None)
        except Exception as error:  # a thread has nobody above it: whatever went wrong must reach the page
            self.publish(stage="failed", seconds_left=None, message=str(error) or type(error).__name__)
        finally:
            self._queue.leave(self)

    def _adapt(self) -> Adapted:
        settings = self.settings
        operator = self._load()
        system = settings.task.system
        test = draw_split(settings.task, "test", TEST_COUNT, resolution=RESOLUTION)
        if settings.examples == 0 and not settings.physics:
            error = self._error(operator, test)
            errors = {"zero_shot": error, "fine_tuned": error}
            return Adapted(settings, {"fine_tuned": operator}, {}, errors, time.monotonic())
        given: dict[str, Any] = {"unlabelled": settings.task}
        if not settings.physics:
            train = draw_split(settings.task, "train", settings.examples, resolution=RESOLUTION)
            given = {"data": train, "system": system, "resolution": _coarse_first(operator)}
        validation = draw_split(settings.task, "validation", VALIDATION_COUNT, resolution=RESOLUTION)
        self.check()
        rates = list(LEARNING_RATES) if settings.learning_rate is None else [settings.learning_rate]
        config = TrainConfig(
            steps=settings.steps,
            learning_rate=rates[0],
            validate_every=max(1, settings.steps // 12),
            report_every=1,
        )
        adaptations: dict[str, Adaptation] = {}
        trained = [p for p in PREDICTIONS.values() if p.train and (p.unlabelled or not settings.physics)]
        for number, predictor in enumerate(trained):
            self.publish(stage=predictor.stage)
            adaptations[predictor.key] = predictor.train(
                operator,
                **given,
                validation=validation,
                config=config,
                batch_size=BATCH_SIZE,
                learning_rates=rates if len(rates) > 1 else None,
                callback=self._follow(predictor.key, number, len(trained)),
            )
            self.check()
        self.publish(stage="testing")
        return Adapted(
            settings=settings,
            operators={name: adaptation.operator for name, adaptation in adaptations.items()},
            learning_rates={name: adaptation.learning_rate for name, adaptation in adaptations.items()},
            errors={"zero_shot": self._error(operator, test)}
            | {name: self._error(adaptation.operator, test) for name, adaptation in adaptations.items()},
            finished=time.monotonic(),
            curves=self.state.curves,
        )

    def _error(self, operator: Operator, test: Examples) -> float:
        self.check()
        prediction = operator.predict(test.source, test.coefficients, self.settings.task.system)
        return mean_relative_error(prediction, test.solution)

    def _follow(self, name: str, number: int, count: int) -> Callable[[Progress], bool]:
        """Callback of one of the trainings."""
        rows: list[Row] = []
        started = copied = time.monotonic()

        def callback(progress: Progress) -> bool:
            nonlocal copied
            operators = self.state.operators
            if progress.operator is not None and time.monotonic() - copied > LIVE_SECONDS:
                operators = {**operators, name: progress.operator.copy()}
                copied = time.monotonic()
            rows.append((progress.step, progress.loss, progress.validation_error))
            left = (time.monotonic() - started) * ((count - number) / progress.fraction - 1)
            self.publish(
                at_once=False,
                fraction=(number + progress.fraction) / count,
                seconds_left=left,
                curves={**self.state.curves, name: tuple(rows)},
                operators=operators,
            )
            return self._cancel.is_set() or self._late

        return callback


def _coarse_first(operator: Operator) -> dict[float, int] | int:
    """Points to train on: most steps on half of them, at a third of the cost, where that resolves the modes."""
    coarse = RESOLUTION // 2
    return {0.0: coarse, 0.7: RESOLUTION} if coarse >= operator.model.smallest_grid else RESOLUTION
