"""The apps' file: all apps of a deployment, as TOML or JSON, read again when it changes.

TOML has a table for each app, ``[shop]`` with ``appid = "wx…"``; JSON is what ``WXB_APPS`` holds.
It may be a mounted secret, whose links are swapped, a file that another one is moved over, or one
that is written in place: whatever changed is seen by looking, and no notice of the system's is
needed. What is read counts once it rests: two looks find the same, or it was not touched for a
second; so a half-written file that happens to be whole TOML takes no app away.

A file is taken whole or not at all: with one fault in it, everything stays as it was, and the
faults are logged, once. An app keeps its appid: another mini-program has other users, and what is
stored of an app is stored under its alias.
"""

import contextlib
import hashlib
import json
import os
import stat
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from producers import logs
from producers.errors import InvalidInputError
from producers.logs.events import AppsChanged, AppsRefused
from producers.settings import faults
from producers.settings.app import AppSettings
from producers.settings.apps import Apps, Named

EVERY_S: Final = 1.0
"""Between two looks; a change is in place after two, unless the file rested by the first."""

_RESTS_S: Final = 1.0
_MOST: Final = 16_777_216
"""Bytes of a file that are read: 500 apps take about 150,000."""

_TOLD: Final = 20
"""Faults, and apps, that a line names."""

_AT_START: Final = 8
_AT_START_S: Final = 0.25
"""How often a file that was just written is read at the start, and the pause in between."""

_NAMED: Final = TypeAdapter(Named)


def parse(raw: bytes) -> dict[str, Any]:
    """Return what a file says, alias → fields, unchecked.

    Raises:
        InvalidInputError: it is neither TOML nor JSON; its text holds no value of the file.
    """
    if len(raw) > _MOST:
        raise InvalidInputError([f"more than {_MOST:,} bytes"])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInputError(["not UTF-8"]) from None
    if not text.strip():
        raise InvalidInputError(["it is empty"])
    # no TOML begins with a brace
    is_json = text.lstrip().startswith("{")
    try:
        found = json.loads(text, object_pairs_hook=_once) if is_json else tomllib.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidInputError([f"not JSON: {error.msg} ({where})"]) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError([f"not TOML: {error}"]) from None
    except ValueError:  # its text would hold a part of the file
        raise InvalidInputError(["it holds a number of thousands of digits"]) from None
    except RecursionError:
        raise InvalidInputError(["too deeply nested"]) from None
    return dict(found)


def check(named: Mapping[str, Any], *, private: bool) -> dict[str, AppSettings]:
    """Return apps by their aliases.

    Args:
        named: alias → fields.
        private: webhooks may go to private networks, and there by http://.

    Raises:
        InvalidInputError: with each fault, ``shop.secret: …``; none of them says a value.
    """
    if not named:
        raise InvalidInputError(["there is no app in it"])
    try:
        apps = _NAMED.validate_python(named)
    except ValidationError as error:
        raise InvalidInputError(faults.of_apps(error)) from None
    found = [*webhook_faults(apps, private=private)]
    if found:
        raise InvalidInputError(found)
    return apps


def check_appids(apps: Mapping[str, AppSettings], before: Mapping[str, str]) -> None:
    """Refuse an alias that means another mini-program than it did.

    Args:
        apps: as they would be.
        before: alias → appid.

    Raises:
        InvalidInputError: with each such alias.
    """
    found = [
        f"{alias}.appid: it is that of another mini-program, whose users have other openids; give "
        "that one an alias of its own"
        for alias, app in apps.items()
        if before.get(alias, app.appid) != app.appid
    ]
    if found:
        raise InvalidInputError(found)


@dataclass(frozen=True, slots=True)
class Change:
    """How apps differ from what they were.

    Attributes:
        added, removed: aliases.
        changed: alias → the names of the fields that differ.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, before: Mapping[str, AppSettings], after: Mapping[str, AppSettings]) -> "Change":
        """Compare two."""
        changed = {
            alias: tuple(
                name
                for name in AppSettings.model_fields
                if getattr(was, name) != getattr(app, name)
            )
            for alias, app in after.items()
            if (was := before.get(alias)) is not None and was != app
        }
        added, removed = after.keys() - before.keys(), before.keys() - after.keys()
        return cls(tuple(sorted(added)), tuple(sorted(removed)), changed)

    @property
    def is_one(self) -> bool:
        """Whether they differ at all."""
        return bool(self.added or self.removed or self.changed)


def webhook_faults(apps: Mapping[str, AppSettings], *, private: bool) -> Iterable[str]:
    """Yield what is wrong with the apps' webhooks in a deployment."""
    for alias, app in apps.items():
        url = app.webhook_url.get_secret_value().lower() if app.webhook_url else "https:"
        if not url.startswith("https:") and not private:
            yield (
                f"webhook_url of {alias}: http:// is for networks of yours; use https://, or "
                "name them in WXB_WEBHOOK_NETWORKS"
            )


def read(path: Path, *, private: bool) -> dict[str, AppSettings]:
    """Return the apps of a file, as it is once it rests; raises as `check`."""
    raw = _read(path)
    for _ in range(_AT_START):
        if _age_s(path) > _RESTS_S:
            break
        time.sleep(_AT_START_S)
        before, raw = raw, _read(path)
        if before == raw:
            break
    return check(parse(raw), private=private)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Take the pairs of a JSON object, each name once, as TOML has it."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError([f"{twice} stands twice in one object"])
    return found


def _read(path: Path) -> bytes:
    try:
        # a pipe would keep whoever opens it waiting for its writer
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInputError([f"{path.name} is no regular file; write the apps to one"])
            return file.read(_MOST + 1)
    except OSError as error:
        raise InvalidInputError([_unreadable(path, error)]) from None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path.name} cannot be read: {error.strerror or type(error).__name__}"


def _age_s(path: Path) -> float:
    """Return how long ago a file was touched, as far as the clocks agree; endless without one."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return time.time() - max(found.st_mtime, found.st_ctime)
    return float("inf")


class AppsFile:
    """Keeps the apps as their file says. Safe to share between threads; one look at a time.

    Args:
        path: of the file.
        apps: kept so; what they are now is what the file said at the start.
        private: as `check`.
    """

    def __init__(self, path: Path, apps: Apps, *, private: bool) -> None:
        self._path = path
        self._apps = apps
        self._private = private
        self._looking = threading.Lock()
        self._known: tuple[int, ...] = ()
        self._judged = self._seen = b""
        self._missing = 0
        self._appids = {alias: app.appid for alias, app in apps.items()}
        self._looked_at = time.monotonic()

    def look_now_and_then(self, every_s: float) -> None:
        """Look, unless somebody has or is about to; for calls of a backend."""
        if time.monotonic() - self._looked_at >= every_s:
            self.look()

    def look(self) -> None:
        """Look once; never raises for what is found."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._looked_at = time.monotonic()
            self._look()
        finally:
            self._looking.release()

    def _look(self) -> None:
        try:
            found = self._path.stat()
            marks = (
                found.st_dev,
                found.st_ino,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )
            if marks == self._known:
                self._missing = 0
                return
            raw = _read(self._path)
        except OSError as error:
            self._gone([_unreadable(self._path, error)])
            return
        except InvalidInputError as error:
            self._gone(error.faults)
            return
        self._missing = 0
        digest = hashlib.sha256(raw).digest()
        rests = time.time() - max(found.st_mtime, found.st_ctime) > _RESTS_S
        # what is young may be written again with the same marks
        self._known = marks if rests else ()
        if digest == self._judged:
            return
        if not rests and digest != self._seen:
            self._seen = digest
            return
        self._judged = digest
        self._judge(raw)

    def _gone(self, why: Iterable[str]) -> None:
        """Keep the apps of a file that is not there; say so once, and not of a moment's absence."""
        self._known, self._judged = (), b""
        self._missing += 1
        if self._missing == 2:
            self._refuse(why)

    def _judge(self, raw: bytes) -> None:
        try:
            apps = check(parse(raw), private=self._private)
            check_appids(apps, self._appids)
        except InvalidInputError as error:
            self._refuse(error.faults)
            return
        change = Change.of(self._apps.now, apps)
        self._apps.put(apps)
        self._appids.update({alias: app.appid for alias, app in apps.items()})
        if change.is_one:
            names = (_names(change.added), _names(change.changed), _names(change.removed))
            logs.emit(AppsChanged(str(self._path), len(apps), *names, digest=self._apps.digest))

    def _refuse(self, why: Iterable[str]) -> None:
        found = [*why]
        said = "; ".join(one[:300] for one in found[:_TOLD])
        logs.emit(AppsRefused(str(self._path), len(found), said, self._apps.digest))


def _names(aliases: Iterable[str]) -> str:
    found = sorted(aliases)
    more = f" and {len(found) - _TOLD:,} more" if len(found) > _TOLD else ""
    return ", ".join(found[:_TOLD]) + more
