"""Figures: what the workers of a run told Prometheus, kept beyond the ends of their processes.

A worker's counters end with it. So it is asked for them before it is killed, at a moment at which
nothing of it changes, and its last ones count on.
"""

import http.client
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from producers.local.ports import HOST

_PORTS: Final = 32
"""A worker takes the first free one of so many."""
_TIMEOUT_S: Final = 2.0
_EVERY_S: Final = 0.15


@dataclass
class Told:
    """What was told, by one worker or by several.

    Attributes:
        answers: action and outcome → answers.
        errcodes: WeChat's errcode → answers.
        timed: answers in the histogram of latencies.
    """

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    errcodes: Counter[str] = field(default_factory=Counter)
    timed: int = 0


class Figures:
    """Asks the workers of one run; for one thread.

    Args:
        port: the first one's.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._lives: dict[str, Told] = {}

    def look(self) -> None:
        """Ask every worker that listens; one that is stopped does not answer, and is passed by."""
        for port in range(self._port, self._port + _PORTS):
            text = read(port, "/metrics")
            if text:
                worker, told = _told(text)
                self._lives[worker] = told

    def await_still(self, least_s: float, most_s: float) -> bool:
        """Look until nothing has changed between two looks; say whether that came.

        Args:
            least_s: no sooner.
            most_s: no later.
        """
        began = time.monotonic()
        before: dict[str, Told] = {}
        while (waited_s := time.monotonic() - began) < most_s:
            self.look()
            if waited_s >= least_s and self._lives == before:
                return True
            before = dict(self._lives)
            time.sleep(_EVERY_S)
        return False

    @property
    def lives(self) -> int:
        """Workers that were asked so far."""
        return len(self._lives)

    def sum(self) -> Told:
        """Return what all of them told last."""
        sums = Told()
        for told in self._lives.values():
            sums.answers.update(told.answers)
            sums.errcodes.update(told.errcodes)
            sums.timed += told.timed
        return sums


def read(port: int, path: str, token: str = "") -> str:
    """Return what a port of this machine answers; '' when it does not."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT_S)
    with closing(connection):
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else ""
        except (OSError, http.client.HTTPException):
            return ""


def _told(text: str) -> tuple[str, Told]:
    """Return who told it, and what."""
    worker, told = "", Told()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "wxbroadcast_worker_info":
                worker = labels["worker"]
            elif sample.name == "wxbroadcast_answers_total":
                told.answers[labels["action"], labels["outcome"]] += round(sample.value)
            elif sample.name == "wxbroadcast_errcodes_total":
                told.errcodes[labels["errcode"]] += round(sample.value)
            elif sample.name == "wxbroadcast_send_latency_seconds_count":
                told.timed += round(sample.value)
    return worker, told
