"""SIGTERM and SIGHUP end a command as Ctrl-C does: by a KeyboardInterrupt, which lets it tidy up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Which signal has interrupted the process, if any has."""

    signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it."""
        return 128 + (self.signal or signal.SIGINT)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """The first of SIGNALS raises KeyboardInterrupt; the same signal again ends the process at once.

    Then the other ones are ignored: a launcher sends SIGTERM to processes that a Ctrl-C in its terminal has reached
    already, and these shall have the time to tidy up. A signal that the process was started to ignore (nohup) stays
    ignored. In other threads than the main one, where Python takes no handlers, nothing changes.
    """
    interruption = Interruption()

    def interrupt(number: int, _: FrameType | None) -> None:
        if interruption.signal is None:
            interruption.signal = signal.Signals(number)
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Processes that are started here get SIGNALS once they are `interruptible`, not while they import; threads never.

    A signal that a thread of a C++ library takes does not wake the main one from a wait.
    """
    resource_tracker.ensure_running()  # multiprocessing's helper, whose start would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
