"""Ctrl-C and SIGTERM during work of many steps."""

from __future__ import annotations

import signal
import threading


class Interrupts:
    """A context in which Ctrl-C and SIGTERM are noted, for work to end between two steps, and none of it to be lost.

    The second one acts at once. Outside of the main thread, which alone hears signals, nothing changes.

    Attributes:
        noted: number of the signal; None before there is one.
    """

    def __init__(self):
        self.noted: int | None = None
        self._handlers: dict = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _note(self, number: int, _) -> None:
        self.noted = number
        self.__exit__()

    def act(self, text: str) -> None:
        """Let the signal do what it does without this context; a KeyboardInterrupt has the text."""
        try:
            if self.noted is None:  # another rank's
                raise KeyboardInterrupt
            signal.raise_signal(self.noted)
        except KeyboardInterrupt as stop:
            stop.args = (text,)
            raise
        self.noted = None
        self.__enter__()
