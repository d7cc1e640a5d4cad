"""What lanes want of a whole broadcast: adopt, split, obey a verdict, start, expire, open, finish.

Each looks at what is and brings it forward; doing one twice changes nothing. A lane that is being
divided keeps back what concerns itself, and nothing else.
"""

import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from producers.broadcasts import Broadcasts
from producers.broadcasts.lifecycle import SPENT
from producers.broadcasts.split import Splitter
from producers.errors import IllegalMoveError, LaneDividedError, NotFoundError
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.plain import PLAIN, PlainArgs, PlainKeys
from producers.templates import Listing, Templates
from producers.words import ENDED, Channel, State
from workers.lanes.copies import Copies
from workers.lanes.divided import Apart
from workers.lanes.standing import MET, Standing, is_through

_REASONS: Final = {
    "abort": "WeChat refuses this message for everybody",
    "pause": "refusals in a row: check the appid, the audience and the template",
}
_LISTED: Final = (
    "WeChat refuses the template as unknown (40037), though its list has it: resume in some minutes"
)
_UNKNOWN_TEMPLATE: Final = 40037
_CONFIRM_MS: Final = 5_000
_LOOK_MS: Final = 200
"""How long a list is waited for that says whether it is, and how often it is looked for."""

_DAY_IS_OVER: Final = 45009
"""What take.lua gives as the cause where a day cannot carry a broadcast."""
_OVER_BUDGET: Final = "over the error budget: too many of the last answers failed"


class Want(NamedTuple):
    """What keep.lua gave: something that goes beyond a lane.

    Attributes:
        lane: where it was found.
        member: in `due`, ``ID`` or ``ID home``.
        until_ms: when it is due again.
        words: what it is about.
    """

    lane: int
    member: str
    until_ms: str
    words: frozenset[str]

    @property
    def broadcast(self) -> str:
        """The broadcast's id."""
        return self.member.partition(" ")[0]


class Wants:
    """Does what lanes want; may be used by several threads."""

    def __init__(self, client: Client, settings: Settings, broadcasts: Broadcasts) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = broadcasts
        self._splitter = Splitter(client, settings)
        self._copies = Copies(client)
        self._plain = PLAIN.on(client)
        self._templates = Templates(client, settings)

    def serve(self, broadcast: str, wants: Sequence[Want], look: Standing, now_ms: int) -> bool:
        """Do what a broadcast wants; returns whether that is done.

        Args:
            broadcast: its id.
            wants: what its lanes want.
            look: how it stands; it has a home.
            now_ms: by the server's clock.

        Raises:
            LaneDividedError: a lane is being divided; what it did not keep back is done.
            redis.RedisError, StoreUnavailableError, WxbroadcastError: it is wanted again.
        """
        if look.home["state"] == State.FINISHED and look.is_short:
            return self._reopen(broadcast, look, now_ms)
        words = frozenset[str]().union(*(want.words for want in wants))
        lanes = Apart()
        lanes.met = look.waits_for_shut
        if "adopt" in words or look.is_behind or look.is_ahead:
            with lanes.from_others():
                self._broadcasts.adopt(broadcast)
        done = True
        for want in wants:
            if "verdict" in want.words:
                with lanes.from_others():
                    done = self.obey(broadcast, want.lane) and done
            if "split" in want.words:
                with lanes.from_others():
                    self._splitter.fill(broadcast, want.lane)
        # one that waits for its start needs no lane for that
        whole = not look.is_behind or look.home["state"] == State.SCHEDULED
        whole = whole and not look.is_ahead
        if whole and words & {"home", "complete", "open", "canary"}:
            done = self._keep_whole(broadcast, look, now_ms) and done
        lanes.end()
        return done  # the lanes that adopted something are due by that

    def _keep_whole(self, broadcast: str, look: Standing, now_ms: int) -> bool:
        """Expire, start, open, hand the canary on, finish; returns whether that is done."""
        home, app = look.home, str(look.home["app"])
        is_over = int(home["expires_at_ms"] or 0) <= now_ms
        if home["state"] not in ENDED and home["drop"] != "late" and is_over:
            self._expire(broadcast)
            return True  # its lanes are due by that
        if home["state"] == State.SCHEDULED:
            return int(home["starts_at_ms"] or 0) > now_ms or self._start(broadcast)
        if look.is_complete:
            if self._broadcasts.finish(broadcast):
                self._client.zrem(keys.active(app), broadcast)
            return True
        if any(copy["open"] == "1" for copy in look.copies.values()):
            return self._open_all(app, broadcast, look)
        return self._hand_canary_on(app, broadcast, look)

    def obey(self, broadcast: str, lane: int) -> bool:
        """Bring a lane's verdict (``abort 40037``, ``pause 43101``) to the whole broadcast.

        Unless its state has changed since the lane last heard of one: resumed, it is judged anew.
        Carriers are paused at the worst, all of the day's together: messages wait for an operator,
        or until they are late, and no further one is posted (post.lua).

        A 40037 is confirmed first: false ones were seen on good templates, for minutes. Until the
        app's list is read, `_CONFIRM_MS` at the most, no lane takes anything. A template that it
        has is not the trouble: the broadcast is paused, and nothing of it is lost.

        Returns:
            Whether it is done; False: the list may come, look again.
        """
        verdict, generation, app, channel, template_id = self._client.hmget(
            keys.lane_broadcast(lane, broadcast),
            ["verdict", "generation", "app", "channel", "template"],
        )
        if not verdict:
            return True
        move, _, errcode = verdict.partition(" ")
        reason = _REASONS[move] if int(errcode) else _OVER_BUDGET
        if int(errcode) == _DAY_IS_OVER:
            reason = SPENT
        if keys.is_carrier(broadcast):
            move = "pause"
        elif move == "abort" and int(errcode) == _UNKNOWN_TEMPLATE:
            said = self._confirm(broadcast, lane, verdict, app, Channel(channel), template_id)
            if said is Listing.PENDING:
                return False
            if said is Listing.LISTED:
                move, reason = "pause", _LISTED
        try:
            self._broadcasts.move(broadcast, move, reason, int(errcode), known=generation)
        except (IllegalMoveError, NotFoundError):
            return True  # somebody was faster, or the operator was
        for sibling in self._broadcasts.siblings(broadcast):
            with contextlib.suppress(IllegalMoveError, NotFoundError):
                self._broadcasts.move(sibling, move, reason, int(errcode))
        return True

    def _confirm(
        self,
        broadcast: str,
        lane: int,
        verdict: str,
        app: str,
        channel: Channel,
        template_id: str,
    ) -> Listing:
        """Say whether the app's own list has a template that WeChat calls unknown."""
        since_ms, now_ms = self._copies.question(broadcast, lane, verdict, _LOOK_MS)
        if since_ms == now_ms:  # it begins here: the others stop too
            for other in self._settings.layout.lanes:
                if other != lane:
                    with Apart().from_others():  # it has a verdict of its own soon
                        self._copies.question(broadcast, other, verdict, _LOOK_MS)
        if not since_ms:  # it does not run any more
            return Listing.UNKNOWN
        until_ms = since_ms + _CONFIRM_MS
        return self._templates.confirm(app, channel, template_id, since_ms, until_ms)

    def _start(self, broadcast: str) -> bool:
        """Let a scheduled broadcast run whose time has come; returns whether it does."""
        try:
            self._broadcasts.start(broadcast)
        except (IllegalMoveError, NotFoundError):
            return False  # somebody was faster, or the clock was set back: look again
        return True

    def _expire(self, broadcast: str) -> None:
        try:
            self._broadcasts.move(broadcast, "expire", "expired")
        except (IllegalMoveError, NotFoundError):
            return

    def _reopen(self, broadcast: str, look: Standing, now_ms: int) -> bool:
        """Go on with a finished broadcast of which Redis forgot outcomes: they may have been sent.

        Returns:
            Whether that is done.
        """
        if self._broadcasts.reopen(broadcast):
            app = str(look.home["app"])
            self._client.zadd(keys.active(app), {broadcast: now_ms}, nx=True)
        return True

    def open_lanes(self, app: str, broadcast: str, lanes: list[int]) -> bool:
        """Let the flood into these lanes: somewhere a message was delivered.

        Returns:
            Whether all of them are open.
        """
        return self._copies.open(app, broadcast, lanes)

    def _open_all(self, app: str, broadcast: str, look: Standing) -> bool:
        """Open every lane, and let those that are open on their own know that the others are."""
        closed = [lane for lane, copy in look.copies.items() if copy["open"] != "1"]
        if not self.open_lanes(app, broadcast, [lane for lane in closed if lane != look.shut]):
            return False  # a lane has not adopted the broadcast yet
        if look.shut in closed:
            raise LaneDividedError
        for lane, copy in look.copies.items():
            if copy["open"] == "1" and copy["told"] != "1":
                self._copies.mark(broadcast, lane, "told", "1")
        return True

    def _hand_canary_on(self, app: str, broadcast: str, look: Standing) -> bool:
        """Move a canary on whose lane is used up; returns whether it is where it belongs.

        It takes along what it met: K errors over all lanes pass the verdict in the last one.
        """
        at = self._settings.layout.heir(int(look.home["canary_lane"] or 0))
        copy = look.copies.get(at)
        if copy is None:
            return False  # its lane was divided since it was looked at
        waiting = [lane for lane, one in look.copies.items() if lane != at and not is_through(one)]
        if not is_through(copy) or copy["state"] != "running" or not waiting:
            return True
        waiting = [lane for lane in waiting if lane != look.shut]
        if not waiting or at == look.shut:
            raise LaneDividedError
        self._copies.give_canary(app, broadcast, at, 0)
        errors = [int(copy[name] or 0) for name in MET]
        if not self._copies.give_canary(app, broadcast, waiting[0], self._settings.canary, errors):
            return False  # it has not adopted the broadcast yet
        home = keys.home(self._broadcasts.home_lane(broadcast), broadcast)
        self._plain(PlainKeys(home), PlainArgs("HSET"), ("canary_lane", str(waiting[0])))
        return True
