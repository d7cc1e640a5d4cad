"""Lua scripts: ``name.lua`` beside ``name.py``, and the one way to call them.

A `Script` is declared in the module that runs it: the names of its KEYS and of its ARGV, and
whether it carries a token and a clock. Its ARGV are the token, then ``now_ms``, where it has them,
then its own arguments, then whatever is repeated (per user, per broadcast …). The header of the
``.lua`` says the same and what each is; a test compares the two.

Every script that pops, claims or counts carries a token chosen by the caller, and the same token
again returns the first answer; so a caller whose reply was lost simply asks again, and redis-py's
own retries stay off. The clock is the server's, unless a test passes its own.

A line ``--@include room/name`` is replaced by a piece that scripts share,
``producers/room/name.lua``, once; a piece includes what it needs itself.

A script that stops something, settles what was sent or frees memory begins with
``#!lua flags=allow-oom``: it runs on a Redis that is full. One that stores something begins with
``#!lua``, and is then refused before it writes anything; without that line Redis looks at its first
write alone, which may be one that frees (Redis docs, Lua API: script flags).
"""

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Generic, NamedTuple, TypeVar

from producers.store import Client, replicas
from producers.store.connection import is_fenced
from producers.store.lanes.fence import guarded
from producers.store.retry import repeat

Value = str | int | float
"""What a script may be given."""

Keys = TypeVar("Keys", bound=tuple[str, ...])
Args = TypeVar("Args", bound=tuple[Value, ...])

_INCLUDE: Final = re.compile(r"^--@include ([\w/]+)\n", re.MULTILINE)


_WHEN_FULL: Final = "#!lua flags=allow-oom\n"


class NoArgs(NamedTuple):
    """Of a script that needs none."""


class Call(NamedTuple):
    """One call of a script that may be made alone, or with others in one trip (`store.trip`).

    Attributes:
        registered: the client's own script.
        keys, argv: all that it is given, the token included: made again it is the same call.
    """

    registered: Any
    keys: tuple[str, ...]
    argv: tuple[Value, ...]

    def run(self) -> Any:
        """Make it; as `Bound.__call__`."""
        return self.registered(keys=self.keys, args=self.argv)

    def into(self, pipeline: Any) -> None:
        """Have a pipeline make it; without the question whether Redis knows the script."""
        pipeline.execute_command(
            "EVALSHA", self.registered.sha, len(self.keys), *self.keys, *self.argv
        )


@dataclass(frozen=True, slots=True)
class Script(Generic[Keys, Args]):
    """One script, as its callers see it.

    Attributes:
        package: import package that holds it.
        name: the file's name, without ``.lua``.
        keys: its KEYS, a NamedTuple; ``reply`` is the first of them when it carries a token.
        args: its ARGV, a NamedTuple, without token and clock.
        token: whether it carries a token.
        clock: whether it takes the clock.
        replicated: whether its answer waits for replicas, where any are asked for (`replicas`); it
            carries a token.
    """

    package: str
    name: str
    keys: type[Keys]
    args: type[Args]
    token: bool = False
    clock: bool = False
    replicated: bool = False

    def on(self, client: Client, *, when_full: bool = False) -> "Bound[Keys, Args]":
        """Return the script, ready to be run on a client.

        Args:
            client: Redis.
            when_full: run it on a Redis that is full, though its first line does not say so.
        """
        return Bound(self, client, when_full=when_full)


class Bound(Generic[Keys, Args]):
    """A script on one client; on one for an event loop, its answers are awaited."""

    def __init__(
        self, script: Script[Keys, Args], client: Client, *, when_full: bool = False
    ) -> None:
        self._token = script.token
        self._clock = script.clock
        text = source(script.package, script.name)
        text = _WHEN_FULL + text if when_full else text
        self._run = client.register_script(guarded(text) if is_fenced(client) else text)
        if script.replicated:
            replicas.note(self._run.sha)

    @property
    def registered(self) -> Any:
        """The client's own script, for `ahead`."""
        return self._run

    def argv(
        self, args: Args, more: Iterable[Value] = (), *, token: str = "", now: Value = ""
    ) -> tuple[Value, ...]:
        """Return ARGV; as `__call__`."""
        if not self._token:
            return (now, *args, *more) if self._clock else (*args, *more)
        token = token or new_token()
        return (token, now, *args, *more) if self._clock else (token, *args, *more)

    def call(
        self,
        keys: Keys,
        args: Args,
        more: Iterable[Value] = (),
        *,
        more_keys: Iterable[str] = (),
        token: str = "",
        now: Value = "",
    ) -> Call:
        """Return the call that `__call__` makes, to be made later."""
        argv = self.argv(args, more, token=token, now=now)
        return Call(self._run, (*keys, *more_keys), argv)

    def __call__(
        self,
        keys: Keys,
        args: Args,
        more: Iterable[Value] = (),
        *,
        more_keys: Iterable[str] = (),
        token: str = "",
        now: Value = "",
        into: Any = None,
    ) -> Any:
        """Run it once.

        Args:
            keys: its KEYS.
            args: its ARGV.
            more: what ARGV has beyond those.
            more_keys: what KEYS has beyond those.
            token: the same token again returns the first answer; '' is a new one.
            now: epoch ms (reserve: µs); '' is the server's own.
            into: a pipeline that is to run it.

        Raises:
            redis.RedisError: whatever running it raises; nothing is repeated.
        """
        argv = self.argv(args, more, token=token, now=now)
        return self._run(keys=(*keys, *more_keys), args=argv, client=into)

    def repeated(
        self,
        during: str,
        keys: Keys,
        args: Args,
        more: Iterable[Value] = (),
        *,
        more_keys: Iterable[str] = (),
    ) -> Any:
        """Run it until Redis answers, with the same token each time; not on an event loop.

        Args:
            during: what is being done, for the log.
            keys: its KEYS.
            args: its ARGV.
            more: what ARGV has beyond those.
            more_keys: what KEYS has beyond those.

        Raises:
            StoreUnavailableError: Redis did not answer (see `retry.repeat`).
        """
        script_keys, argv = (*keys, *more_keys), self.argv(args, more)
        return repeat(during, lambda: self._run(keys=script_keys, args=argv))


@cache
def source(package: str, name: str) -> str:
    """Return the text of ``package/name.lua`` with each piece that it includes in place, once.

    Args:
        package: import package that holds the script, such as ``workers``.
        name: the script's name, without ``.lua``.
    """
    return _with_pieces(files(package).joinpath(f"{name}.lua").read_text("utf-8"), set())


def _with_pieces(text: str, known: set[str]) -> str:
    def piece(match: re.Match[str]) -> str:
        if match[1] in known:
            return ""
        known.add(match[1])
        found = files("producers").joinpath(f"{match[1]}.lua").read_text("utf-8")
        return _with_pieces(found, known)

    return _INCLUDE.sub(piece, text)


def new_token() -> str:
    """Return a token that no other call has."""
    return uuid.uuid4().hex
