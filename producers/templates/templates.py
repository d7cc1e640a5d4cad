"""The templates of every app, as WeChat lists them: looked up, wanted anew, and waited for.

Only workers hold access tokens, so they read the lists (`workers.templates`); whoever needs one
writes so in Redis (template_want.lua), and a wake-up makes it sooner. A list is read by need alone:
when there is none, when one that is needed is older than `templates_max_age`, and once before
anything is refused for what an older one says. What WeChat does not answer is remembered, too.

Whoever waits does so for `_PATIENCE_S` at the most, and only where a worker lives that may answer.
Where nothing is known (a new app, no worker, a WeChat without these calls, an empty list) nothing
is refused: the canary protects, as it does without lists.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple

import redis

from producers.errors import InvalidInputError, StoreUnavailableError
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.clock import ms_of
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script
from producers.templates.catalogue import Catalogue, from_json
from producers.words import Channel

TTL_MS: Final = 30 * 86_400_000

_FRESH_S: Final = 5.0
"""How long a process keeps what it looked up."""

_STALE_MS: Final = 3_600_000
"""What no worker read for so long is given up, until it is wanted again."""

_RECENT_MS: Final = 3_000
"""A list so young is believed when it lacks something: WeChat is asked no oftener than that."""

_CERTAIN_MS: Final = 60_000
"""A list so young is believed as to fields: a template's never change, and their values seldom."""

_PATIENCE_S: Final = 5.0
_FIRST_PATIENCE_S: Final = 1.5
"""How long is waited for a list: for a newer one, and where nothing is known yet."""

_ASK_AGAIN_MS: Final = 60_000
"""Nobody waits for an app that was asked for so lately and did not answer."""

_EMPTY_MS: Final = 600_000
"""A list without a template is read anew when it is older: an app gets its first one some day."""

_LACKING_MS: Final = 600_000
"""A list that lacks what the settings name is read anew when it is older: it may be a mistake."""

_ALIVE_MS: Final = 5_000
"""A worker beats each second."""

_LOOKS_S: Final = (0.02, 0.2)
"""Between two looks of who waits, at first and at most."""

_WAITING: Final = (2, 6)
"""Calls of a process that wait at once: for one app, and for all."""


class Listing(StrEnum):
    """Whether an app's list has a template."""

    LISTED = "listed"
    ABSENT = "absent"
    UNKNOWN = "unknown"
    """Nobody can tell."""
    PENDING = "pending"
    """A newer list may come."""


class WantKeys(NamedTuple):
    """KEYS of template_want.lua."""

    list: str
    due: str


class WantArgs(NamedTuple):
    """ARGV of template_want.lua."""

    member: str
    ttl_ms: int
    stale_ms: int


WANT: Final = Script(__package__, "template_want", WantKeys, WantArgs, clock=True)

_META: Final = (
    "read_at_ms",
    "tried_at_ms",
    "trouble",
    "next_ms",
    "wanted_at_ms",
    "lease_until_ms",
)


class Templates:
    """Looks templates up. Safe to share between threads; make one per process."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._want = WANT.on(client)
        self._kept: dict[tuple[str, Channel], tuple[float, Catalogue]] = {}
        self._asked_at: dict[tuple[str, Channel], float] = {}
        self._waiting: Counter[str] = Counter()
        self._counting = threading.Lock()

    def show(
        self, app: str, channel: str = Channel.SUBSCRIBE, *, refresh: bool = False
    ) -> Catalogue:
        """Return an app's templates, read from WeChat where they never were.

        Args:
            app: alias of the app.
            channel: subscribe, or template: those of the form_id API.
            refresh: read them anew; it is waited for some seconds.

        Returns:
            What there is; `Catalogue.trouble` says why nothing newer came.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: no such channel, or the app's lists are not read (`templates` off).
            StoreUnavailableError: Redis did not answer.
        """
        try:
            known = Channel(channel)
        except ValueError:
            raise InvalidInputError([f"channel {channel!r}: take template or subscribe"]) from None
        if self._is_off(app):
            raise InvalidInputError([f"templates of app {app!r} are not read: its setting is off"])
        found = self._read(app, known)
        if not refresh and found.read_at_ms:
            return found
        asked_ms, from_ms = self._ask(app, known)
        found, is_new = self._wait(app, known, asked_ms, from_ms, _PATIENCE_S)
        if is_new or found.trouble:
            return found
        why = "no worker lives that could ask WeChat"
        if self._lives(asked_ms):
            wait_s = max(0, from_ms - found.now_ms) // 1000
            why = "no worker has answered yet"
            if wait_s:
                why = f"they were read often today; read again in {wait_s:,} s"
        return replace(found, trouble=why)

    def look(self, app: str, channel: str = Channel.SUBSCRIBE) -> Catalogue:
        """Return what is known of an app's templates, at most some seconds old; it waits for none.

        Where Redis does not answer it is what this process knew, or nothing.

        Raises:
            UnknownAppError: no such app.
        """
        known = Channel(channel)
        nothing = Catalogue(app, known)
        if self._is_off(app):
            return nothing
        name = app, known
        kept = self._kept.get(name)
        if kept is not None and time.monotonic() - kept[0] < _FRESH_S:
            return kept[1]
        try:
            return self._read(app, known, tries=1)
        except (redis.RedisError, StoreUnavailableError):
            found = kept[1] if kept is not None else nothing
            self._kept[name] = (time.monotonic(), found)
            return found

    def need(self, app: str, channel: str = Channel.SUBSCRIBE) -> Catalogue:
        """As `look`; what is old, or not known, is wanted anew, at most once a minute."""
        found = self.look(app, channel)
        if self._is_old(found) and not self._is_off(app):
            self._ask_in_time(found)
        return found

    def values_of(
        self, app: str, channel: Channel, template_id: str
    ) -> Mapping[str, frozenset[str]]:
        """Return field → the only values that a template lets it have, as `look` knows them."""
        template = self.look(app, channel).templates.get(template_id)
        return {} if template is None else template.listed

    def lacking(self, found: Catalogue, template_ids: Collection[str]) -> set[str]:
        """Return those that a list lacks, as far as it is known; it is read anew now and then.

        Args:
            found: the list.
            template_ids: what somebody wants to ask users for.
        """
        lacking = {one for one in template_ids if found.lacks(one)}
        if lacking and found.age_ms > _LACKING_MS:
            self._ask_in_time(found)
        return lacking

    def faults(
        self,
        app: str,
        channel: Channel,
        template_id: str,
        data: Mapping[str, str],
        *,
        values: bool = True,
        waits: bool = True,
        is_fresh: bool = False,
    ) -> list[str]:
        """Return why no template of the app fits a message, as far as they are known.

        Args:
            app: alias of the app.
            channel: of which API.
            template_id: the template.
            data: key → value, as it is sent.
            values: as for `faults_of`.
            waits: where nothing is known yet, wait a moment for the list.
            is_fresh: what Redis has was just taken in (`take_in`).

        Returns:
            That there is no such template, or what data lack and have in excess, each in a sentence
            that says what there is; none: it fits, or nobody knows.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        if self._is_off(app):
            return []
        seen = self.need(app, channel)
        if not seen.templates and not waits:
            return []
        faults = seen.faults(template_id, data, values=values)
        if seen.templates:
            certain = not seen.lacks(template_id) and seen.age_ms <= _CERTAIN_MS
            if not faults or certain:
                return faults
        found, is_new = self._newest(seen, is_fresh=is_fresh)
        if found.lacks(template_id) and not is_new:
            return []  # it may have been added since
        return found.faults(template_id, data, values=values)

    def check(
        self,
        app: str,
        channel: Channel,
        template_id: str,
        data: Mapping[str, str],
        *,
        values: bool = True,
        waits: bool = True,
    ) -> None:
        """Refuse a message that no template of the app fits; by the arguments of `faults`.

        Raises:
            InvalidInputError: with each fault.
            UnknownAppError, StoreUnavailableError.
        """
        found = self.faults(app, channel, template_id, data, values=values, waits=waits)
        if found:
            raise InvalidInputError(found)

    def confirm(
        self, app: str, channel: Channel, template_id: str, since_ms: int, until_ms: int
    ) -> Listing:
        """Say whether an app's list has a template that WeChat has just called unknown.

        It waits for nothing: while a newer list may come it says so, and is asked again.

        Args:
            app: alias of the app.
            channel: of which API.
            template_id: the template.
            since_ms: when WeChat said so, epoch ms: a list that has it must be read later.
            until_ms: until when a newer list is wanted.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        if app not in self._settings.apps or self._is_off(app):
            return Listing.UNKNOWN
        found = self._read(app, channel)
        if found.lacks(template_id) and found.read_at_ms >= since_ms - _CERTAIN_MS:
            return Listing.ABSENT
        if found.read_at_ms >= since_ms:
            return Listing.LISTED if template_id in found.templates else Listing.UNKNOWN
        failed = found.trouble and found.tried_at_ms >= since_ms
        if failed or found.now_ms >= until_ms or not self._lives(found.now_ms):
            return Listing.UNKNOWN
        if found.wanted_at_ms >= since_ms:
            comes = found.is_being_read or found.next_ms < until_ms
            return Listing.PENDING if comes else Listing.UNKNOWN
        _, from_ms = self._ask(app, channel)
        return Listing.PENDING if from_ms < until_ms else Listing.UNKNOWN

    # -- what is known ----------------------------------------------------------------------

    def _is_off(self, app: str) -> bool:
        return self._settings.app(app).templates == "off"

    def _is_old(self, one: Catalogue) -> bool:
        if not one.read_at_ms:
            return True
        most_ms = ms(self._settings.templates_max_age)
        return one.age_ms > (min(_EMPTY_MS, most_ms) if not one.templates else most_ms)

    def _read(self, app: str, channel: Channel, *, tries: int = 0) -> Catalogue:
        """Read what Redis has.

        Raises:
            StoreUnavailableError, redis.RedisError: Redis did not answer.
        """
        key = keys.templates(app, channel)

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.hmget(key, *_META)

        def ask_whole(pipeline: Any) -> None:
            pipeline.time()
            pipeline.hmget(key, *_META, "list")

        clock, meta = self._run(ask, tries)
        text = None
        if self._is_news(app, channel, meta):
            clock, (*meta, text) = self._run(ask_whole, tries)
        return self._keep(app, channel, ms_of(clock), meta, text)

    @staticmethod
    def question(app: str, channel: Channel) -> tuple[str, ...]:
        """Return the key and the fields whose values `take_in` takes."""
        return keys.templates(app, channel), *_META

    def take_in(self, app: str, channel: Channel, now_ms: int, meta: Sequence[str | None]) -> bool:
        """Keep what somebody saw who asked Redis anyway.

        Returns:
            Whether that is all that Redis has; not where there is a list that was not read yet.
        """
        if self._is_off(app) or self._is_news(app, channel, meta):
            return False
        self._keep(app, channel, now_ms, meta)
        return True

    def _is_news(self, app: str, channel: Channel, meta: Sequence[str | None]) -> bool:
        """Say whether there is a list that this process has not read."""
        kept = self._kept.get((app, channel))
        return bool(meta[0]) and (kept is None or str(kept[1].read_at_ms) != meta[0])

    def _keep(
        self,
        app: str,
        channel: Channel,
        now_ms: int,
        meta: Sequence[str | None],
        text: str | None = None,
    ) -> Catalogue:
        """Keep what Redis has; the list itself where it is news."""
        kept = self._kept.get((app, channel))
        read_at_ms, tried_at_ms, trouble, next_ms, wanted_at_ms, read_until_ms = meta
        found = Catalogue(app, channel) if kept is None else kept[1]
        if text is not None:
            with contextlib.suppress(ValueError):  # of another version, or spoilt: not known
                templates, is_whole = from_json(text)
                found = replace(found, templates=templates, is_whole=is_whole)
        elif not meta[0]:
            found = Catalogue(app, channel)
        found = replace(
            found,
            read_at_ms=_number(read_at_ms),
            tried_at_ms=_number(tried_at_ms),
            trouble=trouble or "",
            next_ms=_number(next_ms),
            wanted_at_ms=_number(wanted_at_ms),
            read_until_ms=_number(read_until_ms),
            now_ms=now_ms,
        )
        self._kept[app, channel] = (time.monotonic(), found)
        return found

    def _run(self, fill: Any, tries: int) -> list[Any]:
        if not tries:
            return repeat_all("reading the templates", self._client, fill)
        pipeline = self._client.pipeline(transaction=False)
        fill(pipeline)
        answers: list[Any] = pipeline.execute()
        return answers

    # -- what is wanted ---------------------------------------------------------------------

    def _ask(self, app: str, channel: Channel) -> tuple[int, int]:
        """Want a list anew; returns the time, and from when on it may be read.

        Raises:
            StoreUnavailableError: Redis did not answer, or is full.
        """
        return repeat("asking for the templates", partial(self._ask_once, app, channel))

    def _ask_once(self, app: str, channel: Channel) -> tuple[int, int]:
        self._asked_at[app, channel] = time.monotonic()
        asked_ms, from_ms = self._want(
            WantKeys(keys.templates(app, channel), keys.TEMPLATES_DUE),
            WantArgs(f"{channel} {app}", TTL_MS, _STALE_MS),
        )
        return int(asked_ms), int(from_ms)

    def _ask_in_time(self, one: Catalogue) -> None:
        """Want a list anew, unless this process did within a minute, or nobody could answer yet."""
        asked_at = self._asked_at.get((one.app, one.channel), float("-inf"))
        if time.monotonic() - asked_at < _ASK_AGAIN_MS / 1000 or one.next_ms > one.now_ms:
            return
        if one.tried_at_ms < one.wanted_at_ms and one.now_ms - one.wanted_at_ms < _ASK_AGAIN_MS:
            return  # another process did
        with contextlib.suppress(redis.RedisError):
            self._ask_once(one.app, one.channel)

    def _newest(self, seen: Catalogue, *, is_fresh: bool) -> tuple[Catalogue, bool]:
        """Return the newest list that can be had soon, and whether it may be believed.

        Args:
            seen: what is known.
            is_fresh: Redis has nothing newer at this moment.
        """
        app, channel = seen.app, seen.channel
        found = seen if is_fresh else self._read(app, channel)
        patience_s = _PATIENCE_S if found.templates else _FIRST_PATIENCE_S
        if found.templates:
            if found.age_ms <= _RECENT_MS:
                return found, True
        elif found.read_at_ms and not self._is_old(found):
            return found, True
        elif self._is_hopeless(found, patience_s):
            return found, False
        try:
            asked_ms, from_ms = self._ask_once(app, channel)
        except redis.RedisError:  # it is full, or lost the answer: as if nobody could tell
            return found, False
        return self._wait(app, channel, asked_ms, from_ms, patience_s)

    @staticmethod
    def _is_hopeless(found: Catalogue, patience_s: float) -> bool:
        """Say whether it is known that waiting for a first list is in vain."""
        unanswered = found.tried_at_ms < found.wanted_at_ms < found.now_ms - 1000 * patience_s
        lately = found.now_ms - found.wanted_at_ms < _ASK_AGAIN_MS
        return (unanswered and lately) or found.next_ms > found.now_ms + 1000 * patience_s

    def _wait(
        self, app: str, channel: Channel, asked_ms: int, from_ms: int, patience_s: float
    ) -> tuple[Catalogue, bool]:
        """Wait until a list is read that was asked for; as `_newest`."""
        left_s = deadline.left_s()
        if left_s is not None:
            patience_s = min(patience_s, left_s / 2)
        found = self._read(app, channel)
        ends_at, pause_s = time.monotonic() + patience_s, _LOOKS_S[0]
        if from_ms > asked_ms + 1000 * patience_s or not self._lives(asked_ms):
            return found, False
        with self._place(app) as has_place:
            while has_place and time.monotonic() < ends_at:
                time.sleep(min(pause_s, max(0.0, ends_at - time.monotonic())))
                pause_s = min(2 * pause_s, _LOOKS_S[1])
                found = self._read(app, channel)
                if found.read_at_ms >= asked_ms:
                    return found, True
                if found.trouble and found.tried_at_ms >= asked_ms:
                    break
        return found, False

    def _lives(self, now_ms: int) -> bool:
        """Say whether there is a worker."""

        def ask(pipeline: Any) -> None:
            pipeline.zcount(keys.WORKERS, now_ms - _ALIVE_MS, "+inf")

        return bool(repeat_all("looking for workers", self._client, ask)[0])

    @contextlib.contextmanager
    def _place(self, app: str) -> Iterator[bool]:
        """Give a place among those who wait: they never fill the threads of a service."""
        with self._counting:
            has = self._waiting[app] < _WAITING[0] and self._waiting.total() < _WAITING[1]
            self._waiting[app] += has
        try:
            yield has
        finally:
            with self._counting:
                self._waiting[app] -= has


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
