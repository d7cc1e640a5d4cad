"""Which tests may be skipped, and why; in CI any other skip is an error.

A test that is skipped for want of a file or a program proves nothing, and nobody notices. Where the
environment has ``CI``, only the reasons below may skip one. What was skipped for want of WeChat's
samples is told at the end of every run.
"""

import os
from collections import Counter
from typing import Final

import pytest
from samples import ABSENT

EXPECTED: Final = frozenset(
    {
        ABSENT,
        "it is about one server",  # a proxy before it, its restart; of a run on a cluster
        "for the oldest versions (.ci/run)",  # one of the two in each run
        "for the newest versions",
        "there is no fork",  # Windows
        "ru_maxrss has another unit elsewhere",  # not Linux
        "ru_maxrss has another unit there",
        "the clocks change today",
        "WXB_PICTURES=1 makes them anew",  # pictures of a README, which CI does not change
        "this machine stood still for 300 ms",
    }
)


class Skips:
    """Counts what a run skips, by reason."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            assert isinstance(report.longrepr, tuple)
            self._of[report.longrepr[2].removeprefix("Skipped: ")] += 1

    def _unexpected(self) -> list[str]:
        return sorted(self._of.keys() - EXPECTED) if os.environ.get("CI") else []

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._unexpected() and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if missed := self._of[ABSENT]:
            terminalreporter.section("NOT TESTED", sep="=", yellow=True, bold=True)
            terminalreporter.line(f"{missed} tests did not run: {ABSENT}")
        for reason in self._unexpected():
            terminalreporter.section("SKIPPED IN CI", sep="=", red=True, bold=True)
            terminalreporter.line(f"{self._of[reason]} tests, which is an error: {reason}")
