"""Names: which audiences an app has, since when, and which of them are being deleted."""

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from producers.audiences.expressions import NAME
from producers.errors import InvalidInputError, NotFoundError
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.following import following
from producers.store.lanes.plain import PLAIN, PlainArgs, PlainKeys
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script

ALL: Final = "all"
"""The audience that collecting keeps."""

_DELETING: Final = "-"
"""What the time of an audience begins with while it is being deleted."""


class MarkKeys(NamedTuple):
    """KEYS of mark.lua."""

    audiences: str


class MarkArgs(NamedTuple):
    """ARGV of mark.lua."""

    name: str
    mark: str


MARK: Final = Script(__package__, "mark", MarkKeys, MarkArgs)


def standing(names: Mapping[str, str]) -> list[str]:
    """Return the audiences of `keys.audiences` that are not being deleted, ``all`` first."""
    return [ALL, *sorted(name for name, at in names.items() if not at.startswith(_DELETING))]


class Names:
    """The names of every app's audiences. Safe to share between threads.

    Every call may raise `StoreUnavailableError`: Redis did not answer.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._mark = MARK.on(client)
        self._plain = PLAIN.on(client)

    def standing(self, app: str) -> list[str]:
        """Return the names of the app's audiences, sorted, ``all`` first."""
        names = repeat("listing audiences", lambda: self._client.hgetall(keys.audiences(app)))
        return standing(names)

    def begin(self, app: str, name: str) -> None:
        """Name an audience that openids are about to be put into.

        Raises:
            InvalidInputError: the name is not one, or the audience is being deleted.
        """
        if not NAME.fullmatch(name) or name == ALL:
            raise InvalidInputError(
                [f"audience name {name!r}: take 1-64 of letters, digits, _ . - (and not 'all')"]
            )
        self.register(app, name)

    @following
    def register(self, app: str, name: str) -> None:
        """Name the audience, unless it is being deleted.

        Raises:
            InvalidInputError: it is.
        """
        if self._since(app, name) is None:
            self._begin_anew(app, name)
        now = str(time.time_ns() // 10**6)

        def fill(pipeline: Any) -> None:
            pipeline.hsetnx(keys.audiences(app), name, now)
            pipeline.hget(keys.audiences(app), name)

        _, since = repeat_all("naming the audience", self._client, fill)
        if since is not None and since.startswith(_DELETING):
            raise InvalidInputError(
                [f"audience {name!r} is being deleted; delete it again, if that was cut short"]
            )

    def find(self, app: str, name: str) -> None:
        """Say whether there is such an audience.

        Raises:
            NotFoundError: there is none, or it is being deleted.
        """
        if name == ALL:
            return
        since = self._since(app, name)
        if since is None or since.startswith(_DELETING):
            raise _not_found(app, name)

    def mark(self, app: str, name: str) -> None:
        """Begin to delete an audience, or go on: from now on nobody finds it.

        Raises:
            NotFoundError: there is none.
        """
        since = self._since(app, name)
        if since is None:
            raise _not_found(app, name)
        mark = _DELETING + since.removeprefix(_DELETING)
        self._mark.repeated(
            "deleting the audience", MarkKeys(keys.audiences(app)), MarkArgs(name, mark)
        )

    def drop(self, app: str, name: str) -> None:
        """Forget a name: its audience is deleted."""
        repeat("deleting the audience", lambda: self._client.hdel(keys.audiences(app), name))

    def _begin_anew(self, app: str, name: str) -> None:
        """Take away what marks an earlier audience of the name as deleted (see drop.lua)."""

        def fill(pipeline: Any) -> None:
            for lane in self._settings.layout.lanes:
                dropped = keys.audience_dropped(lane, app, name)
                self._plain(PlainKeys(dropped), PlainArgs("UNLINK"), into=pipeline)

        repeat_all("naming the audience", self._client, fill)

    def _since(self, app: str, name: str) -> str | None:
        found: str | None = repeat(
            "looking up the audience", lambda: self._client.hget(keys.audiences(app), name)
        )
        return found


def _not_found(app: str, name: str) -> NotFoundError:
    minus = "; the difference of two is written with blanks: a - b" if "-" in name else ""
    return NotFoundError(
        f"no audience {name!r} of app {app!r}; `wxbroadcast audience list` shows them, "
        f"`wxbroadcast audience import` makes one{minus}"
    )
