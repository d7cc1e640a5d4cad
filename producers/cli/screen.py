"""The screen of ``wxbroadcast top``: the board at a terminal, and the keys that move a broadcast.

A look runs on a thread, one at a time; a Redis that does not answer shows as such, and what was
seen last stays. Nothing is moved without a second key.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static, TabbedContent, TabPane

from producers.board import Board
from producers.broadcasts.status import Status
from producers.cli.statuses import in_words, recipients_of, state_of, to_whom
from producers.errors import WxbroadcastError
from producers.logs.spoken import printable
from producers.words import ENDED

Move = Callable[[str, str], object]
"""Given the id of a broadcast and pause, resume or cancel, moves it."""

_TONES: Final = {
    "running": "green",
    "paused": "yellow",
    "scheduled": "cyan",
    "aborted": "red",
    "cancelled": "magenta",
    "finished": "dim",
}
_BAR: Final = 12


class Sure(ModalScreen[bool]):
    """Asks once more before a broadcast is moved."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]
    CSS = """
    Sure { align: center middle; }
    #question { width: auto; max-width: 76; height: auto; padding: 1 2; border: round $warning; }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Show the question."""
        yield Static(Text(f"{self._question}\n\n[y] yes   [n] no"), id="question")

    def action_answer(self, yes: bool) -> None:
        """Take the answer."""
        self.dismiss(yes)


class Top(App[None]):
    """The board, looked at again and again.

    Args:
        look: returns the board now.
        move: moves a broadcast.
        every_s: seconds between two looks.
    """

    TITLE = "wxbroadcast top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #sums { height: auto; padding: 0 1; }
    #one { height: auto; max-height: 8; padding: 0 1; border-top: solid $foreground 30%; }
    DataTable { height: 1fr; }
    TabbedContent { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("p", "move('pause')", "Pause"),
        Binding("r", "move('resume')", "Resume"),
        Binding("c", "move('cancel')", "Cancel"),
        Binding("a", "ended", "Ended too"),
        Binding("1", "tab('broadcasts')", "Broadcasts", show=False),
        Binding("2", "tab('apps')", "Apps", show=False),
        Binding("3", "tab('workers')", "Workers", show=False),
    ]

    def __init__(self, look: Callable[[], Board], move: Move, every_s: float = 1.0) -> None:
        super().__init__()
        self._look = look
        self._move = move
        self._every_s = every_s
        self._board: Board | None = None
        self._with_ended = True

    def compose(self) -> ComposeResult:
        """Lay out the tables."""
        yield Static("looking …", id="sums")
        with TabbedContent(id="tabs"):
            with TabPane("1 Broadcasts", id="broadcasts"), Vertical():
                yield DataTable(id="broadcast-rows", cursor_type="row", zebra_stripes=True)
                yield Static("", id="one")
            with TabPane("2 Apps", id="apps"):
                yield DataTable(id="app-rows", cursor_type="row", zebra_stripes=True)
            with TabPane("3 Workers", id="workers"):
                yield DataTable(id="worker-rows", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Name the columns and begin to look."""
        self._table("broadcast-rows").add_columns(
            "broadcast", "app", "state", "done", "of", "rate", "ends in", "to"
        )
        self._table("app-rows").add_columns(
            "app", "runs", "waits", "sends/s", "of", "uses", "1 h", "1 day", "aside"
        )
        self._table("worker-rows").add_columns("worker", "app", "since", "closed, for")
        self._table("broadcast-rows").focus()
        self.set_interval(self._every_s, self.watch_board)
        self.watch_board()

    def watch_board(self) -> None:
        """Look, unless a look is under way."""
        if not any(worker.group == "look" and worker.is_running for worker in self.workers):
            self._see()

    @work(thread=True, group="look")
    def _see(self) -> None:
        started = time.monotonic()
        try:
            board = self._look()
        except WxbroadcastError as error:
            self.call_from_thread(self._fail, str(error))
        else:
            self.call_from_thread(self._show, board, time.monotonic() - started)

    def _fail(self, error: str) -> None:
        self.query_one("#sums", Static).update(Text(printable(error), style="bold red"))

    def _show(self, board: Board, took_s: float) -> None:
        self._board = board
        sums = Text.assemble(
            (f"{board.workers.workers} workers", "bold" if board.workers.workers else "bold red"),
            f"  {len(board.apps)} apps  {sum(one.running for one in board.apps)} running  ",
            f"{sum(one.sending for one in board.apps):,.1f} sends/s",
            (f"  {board.left_out:,} more have no place" if board.left_out else "", "yellow"),
            (f"  Redis {took_s * 1000:,.0f} ms", "dim"),
        )
        hindered = [f"{one.app}: {one.hindered}" for one in board.apps if one.hindered]
        if hindered and any(one.running for one in board.apps):
            sums.append(f"\n{printable(hindered[0])}", style="red")
        self.query_one("#sums", Static).update(sums)
        self._fill("broadcast-rows", [_broadcast(one) for one in self._shown()])
        self._fill("app-rows", [_app(one) for one in board.apps])
        self._fill("worker-rows", _workers(board))
        self._tell_one()

    def _shown(self) -> list[Status]:
        board = self._board
        if board is None:
            return []
        return [one for one in board.broadcasts if self._with_ended or one.state not in ENDED]

    def _table(self, name: str) -> "DataTable[Text]":
        return self.query_one(f"#{name}", DataTable)

    def _fill(self, name: str, rows: list[tuple[str, list[Text]]]) -> None:
        """Bring a table to these rows; the cursor stays on its row."""
        table = self._table(name)
        keys = [key for key, _ in rows]
        if [row.key.value for row in table.ordered_rows] != keys:
            at = self._chosen(name)
            table.clear()
            for key, cells in rows:
                table.add_row(*cells, key=key)
            if at in keys:
                table.move_cursor(row=keys.index(at))
            return
        columns = list(table.columns)
        for key, cells in rows:
            for column, cell in zip(columns, cells, strict=True):
                table.update_cell(key, column, cell, update_width=True)

    def _chosen(self, name: str) -> str:
        table = self._table(name)
        if not table.row_count or not table.is_valid_row_index(table.cursor_row):
            return ""
        return str(table.ordered_rows[table.cursor_row].key.value)

    def on_data_table_row_highlighted(self) -> None:
        """Tell more of the broadcast under the cursor."""
        self._tell_one()

    def _tell_one(self) -> None:
        chosen = self._chosen("broadcast-rows")
        one = next((one for one in self._shown() if one.id == chosen), None)
        text = Text()
        if one is not None:
            text.append(f"{one.id}  {printable(state_of(one))}", style="bold")
            if one.waiting:
                text.append(f"\nwaits: {printable(one.waiting)}", style="yellow")
            text.append(f"\n{in_words(one) or 'nobody yet'}")
            if one.errcodes:
                codes = ", ".join(f"{code} × {n:,}" for code, n in one.errcodes.items())
                text.append(f"\nerrcodes: {codes}")
            text.append(
                f"\nqueued {one.queued:,}  delayed {one.delayed:,}  in flight {one.in_flight:,}"
                f"  aside {one.aside:,}  template {printable(one.template_id)}"
            )
        self.query_one("#one", Static).update(text)

    def action_ended(self) -> None:
        """Show what has ended, or hide it."""
        self._with_ended = not self._with_ended
        self._fill("broadcast-rows", [_broadcast(one) for one in self._shown()])
        self._tell_one()

    def action_tab(self, name: str) -> None:
        """Show another table."""
        self.query_one("#tabs", TabbedContent).active = name
        rows = {"broadcasts": "broadcast-rows", "apps": "app-rows", "workers": "worker-rows"}
        self._table(rows[name]).focus()

    def action_move(self, move: str) -> None:
        """Ask, then move the broadcast under the cursor."""
        chosen = self._chosen("broadcast-rows")
        one = next((one for one in self._shown() if one.id == chosen), None)
        if one is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(chosen, move)

        question = f"{move} {one.id} of {one.app} ({one.settled:,} of {one.total:,} done)?"
        self.push_screen(Sure(question), answered)

    @work(thread=True, group="move")
    def _do(self, broadcast: str, move: str) -> None:
        try:
            self._move(broadcast, move)
        except WxbroadcastError as error:
            self.call_from_thread(self.notify, printable(str(error)), severity="error")
        self.call_from_thread(self.watch_board)


def _broadcast(one: Status) -> tuple[str, list[Text]]:
    expected = recipients_of(one)
    share = one.settled / expected if expected else 1.0 * one.complete
    full = round(_BAR * min(1.0, share))
    return one.id, [
        Text(one.id),
        Text(printable(one.app)),
        Text(one.state.value, style=_TONES.get(one.state.value, "")),
        Text.assemble(("█" * full, "green"), ("░" * (_BAR - full), "dim")),
        Text(f"{one.settled:,}/{expected:,}", justify="right"),
        Text(f"{one.rate:,.0f}/s" if one.rate else "", justify="right"),
        Text(_span(one.eta_s), justify="right"),
        Text(printable(to_whom(one))),
    ]


def _app(line: Any) -> tuple[str, list[Text]]:
    numbers = (
        f"{line.running:,}",
        f"{line.paused + line.scheduled:,}",
        f"{line.sending:,.0f}",
        f"{line.rate:,.0f}" if line.rate else "∞",
        f"{line.uses.available:,}",
        f"{line.ending.get('1h', 0):,}",
        f"{line.ending.get('24h', 0):,}",
        f"{line.aside:,}",
    )
    cells = [Text(number, justify="right") for number in numbers]
    return line.app, [Text(printable(line.app), style="red" if line.hindered else ""), *cells]


def _workers(board: Board) -> list[tuple[str, list[Text]]]:
    rows = [
        (
            f"{one.worker} {one.app}",
            [
                Text(printable(one.worker)),
                Text(printable(one.app)),
                Text(_span(one.seconds)),
                Text(printable(one.reason), style="red"),
            ],
        )
        for one in board.workers.closed
    ]
    alive = f"{board.workers.workers} alive"
    return [("alive", [Text(alive), Text(""), Text(""), Text("")]), *rows]


def _span(seconds: int | None) -> str:
    """Return seconds in two words of a terminal's width: 59s, 4m10s, 2h05m, 3d04h."""
    if seconds is None:
        return ""
    for size, unit, below in ((86400, "d", 3600), (3600, "h", 60), (60, "m", 1)):
        if seconds >= size:
            small = {3600: "h", 60: "m", 1: "s"}[below]
            return f"{seconds // size}{unit}{seconds % size // below:02}{small}"
    return f"{seconds}s"
