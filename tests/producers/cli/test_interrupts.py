"""Interrupts: a signal is noted wherever it lands, also within the wait for it."""

import signal
import sys
from types import FrameType
from typing import Any

import pytest

from producers.cli.interrupts import Interrupted, Interrupts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_within_the_wait_ends_it_wherever_it_lands(number: signal.Signals) -> None:
    """It comes at each line in turn that a wait, of three that follow each other, goes through."""
    line, landed = 0, True
    while landed:
        line, landed = line + 1, False
        passed = 0

        def trace(_frame: FrameType, event: str, _arg: Any, at: int = line) -> Any:
            nonlocal passed, landed
            passed += event == "line"
            if passed == at and not landed:
                landed = True
                signal.raise_signal(number)
            return trace

        before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        with Interrupts() as interrupts:
            tracing = sys.gettrace()
            try:
                sys.settrace(trace)
                for _ in range(3):
                    interrupts.wait(0.001)
            except Interrupted as interrupted:
                came = interrupted.exit_code
            else:
                came = 0
            finally:
                sys.settrace(tracing)
            assert came in ((128 + number, 0) if landed else (0,))
            if landed:
                with pytest.raises(Interrupted):
                    interrupts.wait(0)
        for one, old in zip((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(one, old)
    assert line > 3
