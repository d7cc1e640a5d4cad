"""The spec of a broadcast: what is sent to whom, validated whole before anything is stored."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from datetime import datetime, timedelta
from typing import Any, Final, Self

import orjson

from producers import fields
from producers.audiences.expressions import Expression
from producers.errors import InvalidInputError
from producers.settings import AppSettings, kept_rate, ms, rate_faults
from producers.settings.app import PURPOSE, PURPOSE_IS
from producers.store import keys
from producers.times.moments import read_moment
from producers.times.zones import zone_of
from producers.words import Channel

MAX_LIFE: Final = timedelta(days=7)
"""A broadcast lives at most so long; a form_id does not live longer either."""

STATES: Final = ("developer", "trial", "formal")
"""miniprogram_state, subscribeMessage.send."""

LANGS: Final = ("zh_CN", "en_US", "zh_HK", "zh_TW")
"""lang, subscribeMessage.send."""


MOST_WEIGHT: Final = 100
"""Weights are 1 to this: as many messages of a broadcast, while the lightest has one."""

_LATER: Final[dict[str, Any]] = {
    "at": "",
    "until": "",
    "zone": "",
    "weight": 1,
    "columns": (),
    "purpose": "",
    "carry_over": False,
}
"""Fields that an earlier version did not have, as they are when not given: a key outlives an
upgrade."""

_PAYLOAD: Final = ("data", "page", "emphasis_keyword", "miniprogram_state", "lang")


@dataclass(frozen=True, slots=True)
class Spec:
    """One message to one audience.

    Attributes:
        app: alias of the app.
        channel: which WeChat API.
        template_id: the template, 1-128 visible ASCII characters.
        data: key → value, flat (``{"thing1": "…"}``); made of WeChat's own form by `checked`.
        audience: name of the audience, or an expression of several (`audiences.expressions`).
        page: page of the mini-program that a tap opens, or ''.
        emphasis_keyword: template channel: ``keyword1.DATA``, or ''.
        miniprogram_state: subscribe channel: developer, trial or formal.
        lang: subscribe channel: zh_CN, en_US, zh_HK or zh_TW.
        rate: sends per second of this broadcast, within the app's; 0 = the app's alone.
        expires_in_ms: after so long the rest is late.
        priority: served before the others, for messages that a user waits for.
        at: when it starts, as written (ISO 8601); '': at once.
        until: when it ends at the latest, as `at`; '': as expires_in_ms says alone.
        zone: whose clocks show both; '': the app's.
        weight: how many sends it gets while another one of weight 1 gets one; 1-100.
        columns: of the rows, those that data and page have holes for (see `fields.placeholders`),
            as they are stored; none: all recipients are told the same.
        purpose: what it is for, one of the app's `per_user_per_day`; '': none.
        carry_over: what today's quota does not carry goes on by itself when the next day begins;
            else it is paused then.
    """

    app: str
    channel: Channel
    template_id: str
    data: Mapping[str, str]
    audience: str
    page: str = ""
    emphasis_keyword: str = ""
    miniprogram_state: str = "formal"
    lang: str = "zh_CN"
    rate: float = 0
    expires_in_ms: int = ms(MAX_LIFE)
    priority: bool = False
    at: str = ""
    until: str = ""
    zone: str = ""
    weight: int = 1
    columns: tuple[str, ...] = ()
    purpose: str = ""
    carry_over: bool = False

    @classmethod
    def checked(
        cls,
        *,
        app: str,
        channel: str,
        template_id: str,
        data: object,
        audience: str = "",
        rows: bool = False,
        page: str = "",
        emphasis_keyword: str = "",
        miniprogram_state: str = "formal",
        lang: str = "zh_CN",
        rate: float = 0,
        expires_in: timedelta = MAX_LIFE,
        priority: bool = False,
        at: str | datetime = "",
        until: str | datetime = "",
        zone: str = "",
        weight: int = 1,
        purpose: str = "",
        carry_over: bool = False,
    ) -> Self:
        """Build a spec from what a caller gave.

        Args:
            data: ``{"thing1": "…"}``, WeChat's ``{"thing1": {"value": "…"}}``, a JSON string of
                either, or, for the template channel, the seed form ``"a,b,c"``.
            expires_in: between 1 s and 7 days.
            app: as the attribute, and so are those that follow.
            channel: template or subscribe.
            template_id: the template.
            audience: name of the audience, or an expression of several: ``vip & active - churned``;
                none where rows say who it is for.
            rows: each recipient has a row: data and page may have holes for its columns.
            page: page that a tap opens.
            emphasis_keyword: ``keyword1.DATA`` or ``keyword1``.
            miniprogram_state: developer, trial or formal.
            lang: zh_CN, en_US, zh_HK or zh_TW.
            rate: sends per second.
            priority: served before the others.
            at: when it starts: ``2026-12-01 21:00``, with an offset if it is not local to the zone.
            until: when it ends at the latest, as `at`; whichever of it and expires_in comes first.
            zone: an IANA time zone; the app's where none is given.
            weight: 1 to 100; a priority broadcast has none.
            purpose: one that the app's `per_user_per_day` names (`check_purpose`).
            carry_over: the rest of what the day cannot carry goes on the next day by itself.

        Raises:
            InvalidInputError: with one sentence for every fault found.
        """
        try:
            known_channel = Channel(channel)
        except ValueError:
            raise InvalidInputError([f"channel {channel!r}: take template or subscribe"]) from None
        if rows:
            flat, faults = _templates(known_channel, data, page)
            faults += ["audience: the rows say who it is for"] if audience else []
        else:
            flat, faults = _data(known_channel, data)
            faults += fields.check_page(page) if page else []
        faults += fields.check_template_id(template_id)
        audience, wrong = _audience(audience)
        faults += wrong
        if emphasis_keyword:
            emphasis_keyword, wrong = _emphasis(known_channel, emphasis_keyword, flat)
            faults += wrong
        faults += _choices(miniprogram_state, lang, rate, expires_in)
        faults += weight_faults(weight)
        if priority and weight != 1:
            faults.append("weight: a priority broadcast goes before all others; leave one out")
        if purpose and not PURPOSE.fullmatch(purpose):
            faults.append(f"purpose {purpose!r:.50}: {PURPOSE_IS}")
        times, wrong = _times(at, until, zone)
        faults += wrong
        if faults:
            raise InvalidInputError(faults)
        columns = fields.columns_of([*flat.values(), page]) if rows else ()
        spec = cls(
            app=app,
            channel=known_channel,
            template_id=template_id,
            data=flat,
            audience=audience,
            page=page,
            emphasis_keyword=emphasis_keyword,
            miniprogram_state=miniprogram_state,
            lang=lang,
            rate=float(rate),
            expires_in_ms=ms(expires_in),
            priority=priority,
            weight=weight,
            columns=columns,
            purpose=purpose,
            carry_over=bool(carry_over),
            **times,
        )
        return spec.said(()) if rows and not columns else spec

    def said(self, values: Sequence[str]) -> Self:
        """Return what one recipient is told.

        Args:
            values: of the columns, in their order.

        Raises:
            ValueError: there are more or fewer.
        """
        named = dict(zip(self.columns, values, strict=True))
        data = {key: fields.filled(text, named) for key, text in self.data.items()}
        return replace(self, data=data, page=fields.filled_page(self.page, named), columns=())

    def to_json(self) -> str:
        """Return the spec as it is stored at the broadcast's home.

        A message with holes is written in a form of which an earlier version makes no message: what
        that one takes while an upgrade rolls goes back to its queue.
        """
        stored = asdict(self)
        if self.columns:
            stored["data"] = list(stored["data"].items())
        return orjson.dumps(stored, option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a stored spec; what a later version added is left out, and what it lacks is default.

        While an upgrade rolls, processes of both versions read what the other one stored.
        """
        stored: dict[str, Any] = orjson.loads(text)
        names = {field.name for field in dataclass_fields(cls)}
        spec = cls(**{name: value for name, value in stored.items() if name in names})
        return replace(
            spec,
            channel=Channel(spec.channel),
            rate=kept_rate(spec.rate),
            data=dict(spec.data),
            columns=tuple(spec.columns),
        )

    def payload(self) -> str:
        """Return what a single message does not share with the others of its carrier."""
        return orjson.dumps({name: getattr(self, name) for name in _PAYLOAD}).decode()

    def with_payload(self, payload: str) -> Self:
        """Return a carrier's spec with a single message's own content, read as `from_json` does."""
        own = orjson.loads(payload)
        return replace(self, **{name: own[name] for name in _PAYLOAD if name in own})

    def digest(self) -> str:
        """Return what tells this content from another under the same idempotency key."""
        content = asdict(self)
        for name, default in _LATER.items():  # not given: the same as before there was one
            if content[name] == default:
                del content[name]
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()[:32]


def check_purpose(app: str, purpose: str, own: AppSettings) -> None:
    """Look whether a broadcast's purpose is one of its app's.

    Args:
        app: alias of the app.
        purpose: what the broadcast is for; '': nothing is said.
        own: the app's settings.

    Raises:
        InvalidInputError: it is none of them; nothing would count for it.
    """
    if purpose and purpose not in own.per_user_per_day:
        known = ", ".join(own.per_user_per_day) or "none"
        where = f"per_user_per_day of app {app!r}"
        fault = f"purpose {purpose[:40]!r}: {where} names {known}; add it there, 0: without a cap"
        raise InvalidInputError([fault])


def weight_faults(weight: int) -> list[str]:
    """Return what is wrong with a weight."""
    if isinstance(weight, int) and not isinstance(weight, bool) and 1 <= weight <= MOST_WEIGHT:
        return []
    return [f"weight {weight!r}: a whole number, 1 to {MOST_WEIGHT}"]


def _data(channel: Channel, data: object) -> tuple[dict[str, str], list[str]]:
    """Return the data, flat, and its faults."""
    try:
        return fields.parse_data(channel, data), []
    except InvalidInputError as error:
        return {}, list(error.faults)


def _audience(text: str) -> tuple[str, list[str]]:
    """Return the audience as it is stored, and its faults; a carrier has none."""
    if not text or keys.is_beside(text):
        return text, []
    try:
        return Expression.read(text).text, []
    except InvalidInputError as error:
        return text, list(error.faults)


def _templates(channel: Channel, data: object, page: str) -> tuple[dict[str, str], list[str]]:
    """Return data with holes, flat, and its faults, the page's among them."""
    try:
        flat, faults = fields.parse_data(channel, data, fields.check_templates), []
    except InvalidInputError as error:
        flat, faults = {}, list(error.faults)
    return flat, faults + fields.check_templates(channel, {}, page)


def _emphasis(channel: Channel, keyword: str, data: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the emphasis keyword as WeChat wants it, and its faults."""
    if channel is not Channel.TEMPLATE:
        return "", ["emphasis_keyword: only the template channel has one"]
    if not data:
        return "", []  # the data's own faults come first
    try:
        return fields.check_emphasis_keyword(keyword, data), []
    except InvalidInputError as error:
        return "", list(error.faults)


def _times(
    at: str | datetime, until: str | datetime, zone: str
) -> tuple[dict[str, str], list[str]]:
    """Return when it starts and ends, as it is stored, and the faults of that."""
    faults: list[str] = []
    times: dict[str, str] = {}
    for what, given in (("at", at), ("until", until)):
        try:
            times[what] = read_moment(what, given).isoformat() if given else ""
        except InvalidInputError as error:
            faults += error.faults
    if zone:
        try:
            times["zone"] = zone_of(zone).key
        except InvalidInputError as error:
            faults += error.faults
        if not at and not until:
            faults.append("zone: only with at or until")
    return times, faults


def _choices(state: str, lang: str, rate: float, expires_in: timedelta) -> list[str]:
    """Return the faults of what has few or bounded values."""
    faults = []
    if state not in STATES:
        faults.append(f"state {state!r}: take one of {', '.join(STATES)}")
    if lang not in LANGS:
        faults.append(f"lang {lang!r}: take one of {', '.join(LANGS)}")
    faults += rate_faults(rate)
    if not timedelta(seconds=1) <= expires_in <= MAX_LIFE:
        faults.append("expires_in: between 1 second and 7 days")
    return faults
