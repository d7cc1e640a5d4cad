"""The mini-program's door: a phone logs in, and files permits for its own user and no other.

Whoever trusts the openid that a phone sends lets anyone file permits, and rejections, in another's
name. Here a ``wx.login`` code is exchanged for a short-lived signed ticket (see `tickets`), and
what comes with a ticket is stored for the openid in the ticket, whatever the upload says.

In Redis: small limits only (see `limits` and `knocks`). A replayed upload counts once: a form_id or
prepay_id twice is one anyway, and subscriptions need an ``id`` here. If the process dies before the
answer, the phone sends the same again, which loses and doubles nothing.

What it does not do: a user can still lie about *themselves*, for instance report an accept that
never was; WeChat then refuses the send (43101), and that user alone goes without.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Final

import orjson

from producers import logs
from producers.access.knocks import Knocks
from producers.access.limits import Limit, Limits
from producers.access.login_codes import Exchange, LoginCodes
from producers.access.tickets import Holder, Ticket, Tickets
from producers.errors import (
    CodeRefusedError,
    FloodError,
    ForeignOpenidError,
    InvalidInputError,
    LoginUnavailableError,
    TicketError,
)
from producers.logs.events import LoginAnswered, LoginFailed
from producers.permits.collect import Collector
from producers.permits.refusals import Reason, Refusal
from producers.permits.report import Report
from producers.permits.uploads import PERMIT_KEYS, parse_upload
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.lanes.following import following
from producers.store.retry import repeat
from producers.suppressions import Suppressions

MAX_UPLOADS: Final = 20
"""Uploads of one call; the script sends one or two."""

MAX_TEMPLATES: Final = 5
"""Templates of one upload: as many as wx.requestSubscribeMessage takes (WeChat docs)."""

_LOGINS: Final = 200
"""Codes that one process asks WeChat about at once; more are sent away."""

_MINUTE_QUOTA: Final = 45011
_MINUTE_MS: Final = 60_000
_SOON_MS: Final = 5_000
_DAY_MS: Final = 86_400_000

_TEMPLATE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Observed: 43 characters of base64url. A colon would read as another field in Redis."""

_CODE: Final = re.compile(r"[\x21-\x7e]{1,128}")


class Door:
    """Logs phones in and takes their uploads.

    `login` belongs to the event loop that called `open`; all else is synchronous and safe to share
    between threads.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._collector = Collector(client, settings)
        self._suppressions = Suppressions(client, settings)
        self._limits = Limits(client)
        self._tickets = Tickets(settings)
        self._codes: LoginCodes | None = None
        self._knocks = Knocks(client, settings)
        self._logins: Counter[str] = Counter()

    async def open(self) -> None:
        """Open the session to WeChat, on this event loop."""
        self._codes = LoginCodes(self._settings)

    async def close(self) -> None:
        """Close it."""
        codes, self._codes = self._codes, None
        if codes is not None:
            await codes.close()

    # -- logging in -------------------------------------------------------------------------

    async def login(self, app: str, code: str, address: str = "", earlier: str = "") -> Ticket:
        """Exchange a code of ``wx.login`` for a ticket.

        Args:
            app: alias of the app.
            code: as the phone sent it; it works once, for five minutes.
            address: the client's, as far as it can be trusted; empty: none is counted.
            earlier: a ticket that the phone had before, expired or not; it is no proof of who logs
                in, but that the phone is one of ours, see `knocks`.

        Raises:
            UnknownAppError: no such app.
            CodeRefusedError: WeChat does not take the code: the phone calls wx.login again.
            FloodError: too many logins, or refused codes, of this address, user or app.
            LoginUnavailableError: WeChat gave no verdict, or this process has its hands full.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        if self._codes is None:
            raise RuntimeError("open the door before logging in")
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise CodeRefusedError(0)
        knock = await self._knocks.admit(app, address, self._known(app, earlier))
        found = Exchange()
        try:
            with self._asking(app):
                found = await self._codes.exchange(app, code)
        finally:
            if not found.is_refused:
                await self._knocks.give_back(knock)
        if found.openid:
            logs.emit(LoginAnswered(app, found.openid, 0, ""))
            return self._ticket(app, found.openid, knock.now_ms)
        raise self._no_ticket(app, found)

    @contextlib.contextmanager
    def _asking(self, app: str) -> Iterator[None]:
        """Hold a place at WeChat; one app whose WeChat is slow leaves half of them to others."""
        share = _LOGINS if len(self._settings.apps) == 1 else max(1, _LOGINS // 2)
        if self._logins[app] >= share or self._logins.total() >= _LOGINS:
            raise LoginUnavailableError(_SOON_MS)
        self._logins[app] += 1
        try:
            yield
        finally:
            self._logins[app] -= 1

    def _known(self, app: str, earlier: str) -> str:
        """Return the user of an earlier ticket, whatever its age; '' if it is none of ours."""
        try:
            return self._tickets.read(app, earlier).openid if earlier else ""
        except TicketError:
            return ""

    def _no_ticket(self, app: str, found: Exchange) -> CodeRefusedError | LoginUnavailableError:
        """Log a login that failed, and say how."""
        if found.is_refused:
            logs.emit(LoginAnswered(app, "", found.errcode, found.rid))
            return CodeRefusedError(found.errcode)
        logs.emit(LoginFailed(app, found.errcode, found.rid, found.error))
        return LoginUnavailableError(_MINUTE_MS if found.errcode == _MINUTE_QUOTA else _SOON_MS)

    def _ticket(self, app: str, openid: str, at_ms: int) -> Ticket:
        life_s = ms(self._settings.ticket_life) // 1000
        return Ticket(self._tickets.sign(app, openid, at_ms // 1000 + life_s), life_s)

    # -- with a ticket ----------------------------------------------------------------------

    def check(self, app: str, token: str) -> str:
        """Return the openid that a ticket names; counts nothing.

        Args:
            app: alias of the app.
            token: as it came.

        Raises:
            UnknownAppError: no such app.
            TicketError: the ticket is no good. Which kind it is says the type, to us; the text
                is the same for all.
            StoreUnavailableError: Redis, whose clock decides, did not answer.
        """
        return self._holder(app, token).still(self._now_ms())

    @following
    def admit(self, app: str, openid: str) -> int:
        """Count one call of a user.

        Returns:
            The server's clock in ms.

        Raises:
            FloodError: one too many.
            StoreUnavailableError: Redis did not answer.
        """
        lane, _, _ = keys.place_of(openid, self._settings)
        key = keys.upload_flood(lane, app, openid)
        limits = (Limit(key, self._settings.uploads_per_minute),)
        admission = self._limits.admit(lane, limits)
        if not admission.admitted:
            raise FloodError(admission.wait_ms)
        return admission.now_ms

    def enter(self, app: str, token: str) -> str:
        """Check a ticket and count the call, in one trip to Redis.

        Returns:
            The openid.

        Raises:
            UnknownAppError, TicketError, FloodError, StoreUnavailableError: as `check`, `admit`.
        """
        holder = self._holder(app, token)
        return holder.still(self.admit(app, holder.openid))

    def collect(self, app: str, token: str, upload: object) -> Report:
        """Store what a phone uploaded, for the ticket's user.

        Args:
            app: alias of the app.
            token: the ticket.
            upload: one upload as described in `uploads`, or a list of up to 20. ``openid`` is
                absent, or the ticket's. Subscriptions without an ``id`` are refused: they could be
                replayed.

        Returns:
            What was new, known and refused. Permits beyond a day's are refused and not to be sent
            again; rejections never are.

        Raises:
            UnknownAppError, TicketError, FloodError, StoreUnavailableError: as `enter`.
            ForeignOpenidError: an upload names another user; nothing is stored.
            InvalidInputError: it is no upload; nothing is stored.
        """
        openid = self.enter(app, token)
        uploads = upload if isinstance(upload, list) else [upload]
        if len(uploads) > MAX_UPLOADS:
            raise InvalidInputError(
                [f"the list holds {len(uploads):,} uploads; accepted: up to {MAX_UPLOADS}"]
            )
        own = [_own(each, openid) for each in uploads]
        strange = [
            (number, found)
            for number, each in enumerate(own, 1)
            for found in self._strip(app, each)
        ]
        counted = 0
        for number, each in enumerate(own, 1):
            permits = sum(item.accepted for item in parse_upload(each)[0])
            refused = self._count_permits(app, openid, each, permits)
            counted += 0 if refused else permits
            strange += [(number, found) for found in refused]
        report = self._collector.collect(app, own)
        self._count_back(app, openid, counted - report.new)
        for number, refusal in strange:
            report.refuse(number, refusal)
        return report

    def opt(self, app: str, token: str, *, out: bool) -> None:
        """Send the ticket's user nothing more, or messages again.

        Raises:
            UnknownAppError, TicketError, FloodError, StoreUnavailableError: as `enter`.
        """
        openid = self.enter(app, token)
        if out:
            self._suppressions.opt_out(app, openid)
        else:
            self._suppressions.opt_in(app, openid)

    def _count_permits(
        self, app: str, openid: str, upload: dict[str, object], permits: int
    ) -> list[Refusal]:
        """Count the permits of an upload; take out what is beyond a day's, and say so."""
        most = self._settings.permits_per_day
        if not permits or self._admit_permits(app, openid, permits, permits):
            return []
        choices = upload.pop("subscriptions", None)
        for name in PERMIT_KEYS:
            upload.pop(name, None)
        rejected = choices.items() if isinstance(choices, dict) else ()
        upload["subscriptions"] = {one: word for one, word in rejected if word == "reject"}
        detail = f"more permits than one user files in a day; accepted: up to {most}"
        return [Refusal(Reason.TOO_MANY_TODAY, detail)] * permits

    def _count_back(self, app: str, openid: str, permits: int) -> None:
        """Take back the count of what was stored before: a phone sends again what it must."""
        if permits > 0:
            self._admit_permits(app, openid, 0, -permits)

    @following
    def _admit_permits(self, app: str, openid: str, need: int, cost: int) -> bool:
        lane, _, _ = keys.place_of(openid, self._settings)
        key = keys.permit_flood(lane, app, openid)
        limit = Limit(key, self._settings.permits_per_day, need, cost, _DAY_MS)
        return self._limits.admit(lane, (limit,)).admitted

    def _strip(self, app: str, upload: dict[str, object]) -> Iterator[Refusal]:
        """Take out of an upload what templates it must not name, and say which.

        A template that is not the app's would live on in the app's stock, which has no end.
        """
        choices = upload.get("subscriptions")
        if isinstance(choices, str):
            with contextlib.suppress(orjson.JSONDecodeError):
                choices = orjson.loads(choices)
        if not isinstance(choices, dict):
            return  # the parser refuses it
        known = self._settings.app(app).subscribe_templates
        kept: dict[str, object] = {}
        for template, result in choices.items():
            if template == "errMsg":
                continue
            if not _TEMPLATE.fullmatch(template) or (known and template not in known):
                detail = "a template_id is none of this app's; accepted: those it asks for"
                yield Refusal(Reason.BAD_TEMPLATE_ID, detail)
            elif len(kept) == MAX_TEMPLATES:
                detail = f"more than {MAX_TEMPLATES} templates; a phone asks for at most 5 at once"
                yield Refusal(Reason.TOO_MANY_ITEMS, detail)
            else:
                kept[template] = result
        upload["subscriptions"] = kept

    def _holder(self, app: str, token: str) -> Holder:
        self._settings.app(app)
        return self._tickets.read(app, token)

    def _now_ms(self) -> int:
        return repeat("asking the time", partial(now_ms, self._client))


def _own(upload: object, openid: str) -> dict[str, object]:
    """Return an upload that names its user, and replays as one."""
    if not isinstance(upload, dict):  # JSON text could name another user inside
        raise InvalidInputError(["an upload is a JSON object, or a list of them"])
    if upload.get("openid", openid) != openid:
        raise ForeignOpenidError
    own = {**upload, "openid": openid}
    if "subscriptions" in own and own.get("id") is None:
        own["id"] = ""  # the parser refuses each with its reason
    return own
