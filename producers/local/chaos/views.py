"""Views: all who can say what became of a run's broadcast, side by side.

Redis's status, the service, the page's stream of events, `top`, the audit's recount, the report's
table (Redis's own last word, as it was logged) and its lines of sends, the workers' figures, those
of the deployment, and the WeChat. Each is asked by the way by which people ask it. Where something
is not told by one of them, its cell is empty; all others of a row must be equal.

Two are no plain readings. The lines and the workers' figures tell of answers: who is in doubt
without one, because a worker died, is counted by the lines of recoveries. And the WeChat knows
whom it delivered to; of these those are taken off who are recorded in doubt.
"""

import http.client
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client.parser import text_string_to_metric_families

from producers.access.api_keys import ANY_APP, ApiKeys, Scope
from producers.broadcasts import Broadcasts
from producers.care.audit import Auditor
from producers.local.chaos.door import await_port
from producers.local.chaos.figures import Figures, read
from producers.local.chaos.schedule import Plan
from producers.local.parts import APP, DemoError, Watcher, environment_of, log_of
from producers.local.ports import HOST, free_port
from producers.local.supervisor import Supervisor
from producers.settings import Settings
from producers.store import Client
from producers.words import Outcome

HISTOGRAM: Final = "latencies"
NAMES: Final = (
    "Redis",
    "HTTP",
    "page",
    "top",
    "audit",
    "report",
    "lines",
    "workers' metrics",
    HISTOGRAM,
    "/metrics",
    "WeChat",
)
_FATES: Final = ("collected", "available", "held", "spent", "void", "expired")
_COUNTS: Final = ("Redis", "HTTP", "page", "top", "report", "workers' metrics")
_KINDS: Final = {"outcome ": (*_COUNTS, "audit", "lines"), "errcode ": _COUNTS}
_TIMEOUT_S: Final = 20.0
_LOGGED_S: Final = 10.0


@dataclass
class Row:
    """One number, as each view tells it.

    Attributes:
        name: of what.
        cells: view → the number.
    """

    name: str
    cells: dict[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether all say the same."""
        return len(set(self.cells.values())) == 1

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return {"name": self.name, "equal": self.equal, **self.cells}


@dataclass
class Views:
    """The table.

    Attributes:
        rows: what is compared.
        lives: workers whose figures are in it.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    lives: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return {"views": [row.as_dict() for row in self.rows.values()], "lives": self.lives}

    @property
    def faults(self) -> list[str]:
        """The rows that differ, as sentences."""
        return [f"{row.name}: {row.cells}" for row in self.rows.values() if not row.equal]

    def put(self, view: str, name: str, number: int) -> None:
        """Fill in a cell."""
        self.rows.setdefault(name, Row(name)).cells[view] = number

    def fill(self) -> None:
        """Fill in a 0 where a view tells of others of the same kind, and not of this one."""
        for kind, views in _KINDS.items():
            for name, row in self.rows.items():
                if name.startswith(kind):
                    row.cells = {**dict.fromkeys(views, 0), **row.cells}


def ask(
    plan: Plan,
    units: Supervisor,
    figures: Figures,
    folder: Path,
    client: Client,
    settings: Settings,
    broadcast: str,
    received: int,
    watcher: Watcher,
) -> Views:
    """Ask everybody, and stop the workers.

    Args:
        plan: of the run.
        units: the workers.
        figures: theirs.
        folder: the run's.
        client: Redis, directly.
        settings: where Redis is.
        broadcast: the id.
        received: openids that the sandbox delivered to, but for those who are in doubt.
        watcher: may end it.

    Raises:
        DemoError: somebody did not answer, or the last line was not written.
    """
    views = Views()
    if not figures.await_still(1.0, _TIMEOUT_S):
        raise DemoError("the workers' figures do not come to rest")
    views.lives = figures.lives
    log = log_of(plan.demo, folder)
    deadline = time.monotonic() + _LOGGED_S
    while b'"broadcast_counted"' not in _tail(log):
        if time.monotonic() > deadline:
            raise DemoError("no line has the broadcast's last word")
        watcher.wait(0.2)
    units.stop()  # their last lines are written
    _of_redis(views, "Redis", Broadcasts(client, settings).status(broadcast).as_dict())
    env = environment_of(plan.demo, settings)
    _of_service(views, env, folder, client, settings, broadcast, watcher)
    _of_board(views, "top", _shown(env, "top"), broadcast)
    auditor = Auditor(client, settings)
    written = auditor.run(broadcast).written
    for outcome, count in written.items():
        views.put("audit", f"outcome {outcome}", count)
    views.put("audit", "recipients", sum(written.values()))
    _of_uses(views, "audit", auditor.run().ledgers[APP].total.as_dict())
    recovered = _of_report(views, _shown(env, "report", str(log)), broadcast)
    _of_figures(views, figures, recovered)
    views.put("WeChat", "outcome delivered", received)
    views.fill()
    return views


def _tail(log: Path) -> bytes:
    """Return the last million bytes of a file."""
    with log.open("rb") as lines:
        lines.seek(max(0, log.stat().st_size - 1_000_000))
        return lines.read()


def _shown(env: Mapping[str, str], *command: str) -> Any:
    """Return what a command of ours prints as JSON."""
    words = [sys.executable, "-m", "producers.cli", *command, "--json"]
    shown = subprocess.run(words, env=env, capture_output=True, check=False, timeout=120)  # noqa: S603
    if shown.returncode:
        raise DemoError(f"{command[0]}: {shown.stderr.decode(errors='replace')}")
    return orjson.loads(shown.stdout)


def _of_redis(views: Views, view: str, status: dict[str, Any]) -> None:
    """Take in a status."""
    views.put(view, "recipients", status["total"])
    for outcome, count in status["outcomes"].items():
        views.put(view, f"outcome {outcome}", count)
    for errcode, count in status["errcodes"].items():
        views.put(view, f"errcode {errcode}", count)


def _of_uses(views: Views, view: str, uses: dict[str, int]) -> None:
    """Take in where the uses of permits are."""
    for fate in _FATES:
        views.put(view, f"permits {fate}", uses[fate])


def _of_board(views: Views, view: str, board: dict[str, Any], broadcast: str) -> None:
    """Take in a board."""
    (status,) = [one for one in board["broadcasts"] if one["id"] == broadcast]
    _of_redis(views, view, status)
    (line,) = [one for one in board["apps"] if one["app"] == APP]
    _of_uses(views, view, line["uses"])


def _of_service(
    views: Views,
    env: dict[str, str],
    folder: Path,
    client: Client,
    settings: Settings,
    broadcast: str,
    watcher: Watcher,
) -> None:
    """Run the service, and take in what it answers, its page is told, and Prometheus is."""
    token = ApiKeys(client, settings).create("compare", [ANY_APP], [Scope.READ]).token
    with (folder / "web.log").open("ab") as output:
        service = Supervisor(env, folder, output)
        try:
            port = free_port()
            service.start("web.1", f"wxbroadcast web --port {port}")
            await_port(port, folder, watcher)
            told = read(port, f"/v1/apps/{APP}/broadcasts/{broadcast}", token)
            if not told:
                raise DemoError("the service does not tell of the broadcast")
            _of_redis(views, "HTTP", orjson.loads(told))
            _of_board(views, "page", _board_of(port, token), broadcast)
            for family in text_string_to_metric_families(read(port, "/metrics", token)):
                for sample in family.samples:
                    if sample.name == "wxbroadcast_permit_uses_total":
                        name = f"permits {sample.labels['fate']}"
                        views.put("/metrics", name, round(sample.value))
                    elif sample.name == "wxbroadcast_permit_stock":
                        name = f"permits {sample.labels['where']}"
                        views.put("/metrics", name, round(sample.value))
        finally:
            service.stop()


def _board_of(port: int, token: str) -> dict[str, Any]:
    """Return the first board that the page's stream of events tells."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT_S)
    with closing(connection):
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/console/events", headers=headers)
        answer = connection.getresponse()
        event = ""
        while (line := answer.readline().decode()) != "":
            name, _, value = line.rstrip("\r\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "board":
                board: dict[str, Any] = orjson.loads(value)
                return board
    raise DemoError("the page is told of no board")


def _of_report(views: Views, report: dict[str, Any], broadcast: str) -> int:
    """Take in what the lines add up to; return how many recoveries left in doubt."""
    (one,) = [each for each in report["broadcasts"] if each["id"] == broadcast]
    _of_redis(views, "report", one)
    lines: Counter[str] = Counter()
    for moment in report["moments"]:
        lines.update(moment["outcomes"])
    del lines[""]  # of answers after which a message goes on
    recovered = int(report["recovered"].get("in_doubt", 0))
    lines[Outcome.IN_DOUBT] += recovered
    for outcome, count in (+lines).items():
        views.put("lines", f"outcome {outcome}", count)
    views.put("report", "answers", one["answers"])
    views.put("lines", "answers", sum(report["actions"].get(APP, {}).values()))
    return recovered


def _of_figures(views: Views, figures: Figures, recovered: int) -> None:
    """Take in what the workers told Prometheus."""
    view, told = "workers' metrics", figures.sum()
    settled = Counter({out: n for (action, out), n in told.answers.items() if action == "settled"})
    settled[Outcome.IN_DOUBT] += recovered
    for outcome, count in (+settled).items():
        views.put(view, f"outcome {outcome}", count)
    for errcode, count in told.errcodes.items():
        views.put(view, f"errcode {errcode}", count)
    views.put(view, "answers", told.answers.total())
    views.put(HISTOGRAM, "answers", told.timed)
