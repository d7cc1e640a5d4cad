"""What every command runs in: its exit codes, the settings, Redis, and where its words go.

stdout carries the result alone: a table or, with ``--json``, one JSON object as its last line.
Everything else goes to stderr: sentences and progress, and, unless it is a terminal, log lines.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from producers.settings import Settings
    from producers.store import Absent


class Code(IntEnum):
    """The exit codes."""

    OK = 0
    WRONG = 1
    """Something was wrong in the data or the sums."""
    USAGE = 2
    """Wrong usage, input or settings."""
    STOPPED = 3
    """The broadcast was aborted or cancelled."""
    NO_STORE = 4
    """Redis did not answer."""
    PART = 5
    """A node of the cluster did not answer; what is shown is a part."""
    INTERRUPTED = 130
    """Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Session:
    """An open command: its settings, Redis, and what of that is away."""

    settings: "Settings"
    client: Any
    absent: "Absent"

    def end(self, *, as_json: bool) -> None:
        """End a command that showed what it could: with a word about what that lacks, if anything.

        Raises:
            typer.Exit: it was a part.
        """
        if not self.absent:
            return
        if not as_json:
            for sentence in self.absent.in_words():
                say(f"PARTIAL: {sentence}")
        raise typer.Exit(Code.PART)

    def whole_or_part(self) -> dict[str, Any]:
        """Return what a JSON answer says more where it is a part."""
        return {"partial": self.absent.as_dict()} if self.absent else {}


@contextlib.contextmanager
def guarded(*, as_json: bool) -> Iterator[None]:
    """Turn what this package raises on purpose into a sentence and an exit code.

    Args:
        as_json: also print ``{"error", "faults"}`` as the last line on stdout.

    Raises:
        typer.Exit: with one of `Code`.
    """
    from redis import RedisError

    from producers import logs
    from producers.errors import InvalidInputError, StoreUnavailableError, WxbroadcastError
    from producers.store import trouble

    if sys.stderr.isatty():
        logs.silence()
    else:
        logs.configure("cli", descriptor=2)
    try:
        yield
    except StoreUnavailableError as error:
        fail(str(error), Code.NO_STORE, as_json=as_json)
    except RedisError as error:
        fail(trouble.in_words(error), Code.NO_STORE, as_json=as_json)
    except InvalidInputError as error:
        fail(str(error), Code.USAGE, as_json=as_json, faults=error.faults)
    except WxbroadcastError as error:
        fail(str(error), Code.USAGE, as_json=as_json)
    except KeyboardInterrupt:
        fail("interrupted", Code.INTERRUPTED, as_json=as_json)
    finally:
        logs.close()


@contextlib.contextmanager
def opened(*, as_json: bool) -> Iterator[Session]:
    """Load the settings and open Redis, within `guarded`."""
    with guarded(as_json=as_json):
        from producers import settings, store
        from producers.errors import StoreUnavailableError
        from producers.local.url import what_ended

        loaded = settings.load()
        client = store.connect(loaded, role="cli")
        try:
            store.silent(client)  # once for all that follows
            store.check_layout(client, loaded)
            yield Session(loaded, client, store.absent(client, loaded))
        except StoreUnavailableError as error:
            ended = what_ended(loaded.redis_url.get_secret_value())
            raise StoreUnavailableError(ended or str(error)) from error
        finally:
            client.close()
            client.connection_pool.disconnect()


def fail(error: str, code: int, *, as_json: bool, faults: Sequence[str] = ()) -> NoReturn:
    """Say what is wrong, and end the command."""
    lines = faults or error.splitlines()
    say("\n".join(f"wxbroadcast: {line}" for line in lines))
    if as_json:
        print_json({"error": error, "faults": list(lines)})
    raise typer.Exit(code)


def say(sentence: str) -> None:
    """Tell the person at the terminal something, on stderr."""
    typer.echo(sentence, err=True)


def print_json(document: object) -> None:
    """Print a JSON object as one line on stdout."""
    import orjson

    text = orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS)
    typer.echo(text.decode())


def print_table(table: "RenderableType") -> None:
    """Print something of rich's on stdout; in a pipe it is not cut to a screen's width."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def table(*columns: str, title: str | None = None) -> Any:
    """Return a plain table; columns after the first are right-aligned when named ``>…``."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        made.add_column(
            name.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    return made
