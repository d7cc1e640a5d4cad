"""Lines: what an export is made of, written and read.

One JSON object a line: first the header, last the footer, between them in any order:

- ``{"user": OPENID, "uses": {MEMBER: ends_ms}, "gone": {MEMBER: until_ms}, "accepts": {TEMPLATE:
  count}, "marks": {TEMPLATE: mark}}``: what a user has. A member is a use of a permit, as
  `keys.permits` names it; ``gone`` are those that were held, spent or void, which must not be taken
  again; a count of −1 is long-term; a mark is as in permit.lua. A user with many uses has several
  lines; all members of ``all`` have one.
- ``{"audience": NAME, "openids": [OPENID …]}``
- ``{"suppressed": REASON, "openids": [OPENID …]}``; or ``{"suppressed": "forgotten", "bucket": N,
  "digests": [DIGEST …]}``
- ``{"key": {…}}``: what may be shown of an API key

The header says which version of this it is, of which app (its appid: openids are its own), and
which export it is; the footer what was written, and the SHA-256 of all before it. No secret, token,
or digest of a key is in it; the permits and openids in it are worth as much care as the database.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import orjson

from producers.audiences.expressions import NAME
from producers.errors import InvalidInputError
from producers.openid import OPENID, TEMPLATE_ID
from producers.suppressions import Reason

VERSION: Final = 1
"""Of the form; a later one is refused, for nobody knows what it would leave out."""
FORM: Final = "wxbroadcast export"
MOST_USES: Final = 200
"""Uses, present and gone, of one line."""
MOST_OPENIDS: Final = 500
"""Openids of one line."""
_MOST_USES_READ: Final = 1000
_MOST_OPENIDS_READ: Final = 10_000
_MOST_TEMPLATES: Final = 1000
_MOST_MS: Final = 2**53
_MOST_KEY_BYTES: Final = 8192
_MEMBER: Final = re.compile(r"f:[\x21-\x7e]{1,128}|p:[\x21-\x7e]{1,128}:[123]")
_MARK: Final = re.compile(r"[0-9]{1,16} [0-9]{1,16} [0-9]{1,16}( [0-9a-f]{10}:[0-9]{13}){0,64}")
_ID: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Header:
    """The first line.

    Attributes:
        app: alias of the app where it was exported.
        appid: of the app: its openids mean nothing elsewhere.
        export: which export it is; no other one has it.
        origin: the deployment that it is of.
        at_ms: when it began, server epoch ms.
        lanes, buckets: of that deployment.
        version: of the form.
    """

    app: str
    appid: str
    export: str
    origin: str
    at_ms: int
    lanes: int
    buckets: int
    version: int = VERSION

    def line(self) -> bytes:
        """Return it as it is written."""
        return written({"form": FORM, **asdict(self)})

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Read the first line of a file.

        Raises:
            InvalidInputError: it begins no export that is understood here.
        """
        found = parsed(line)
        if not isinstance(found, dict) or found.pop("form", None) != FORM:
            raise InvalidInputError(
                ["this is no file of `wxbroadcast export`: its first line is another one"]
            )
        if found.get("version") != VERSION:
            fault = (
                f"the file is of version {found.get('version')!r}, understood is {VERSION}: "
                "import it with the version of wxbroadcast that wrote it, or a later one"
            )
            raise InvalidInputError([fault])
        try:
            header = cls(**found)
        except TypeError:
            raise InvalidInputError(["the first line lacks something: export it again"]) from None
        texts = (header.app, header.appid, header.export, header.origin)
        whole = (header.at_ms, header.lanes, header.buckets)
        if (
            not all(isinstance(one, str) for one in texts)
            or not all(type(one) is int and 0 < one <= _MOST_MS for one in whole)
            or not (_ID.fullmatch(header.export) and _ID.fullmatch(header.origin))
            or header.buckets > 2**20
        ):
            raise InvalidInputError(["the first line was changed: export it again"])
        return header


@dataclass
class Sums:
    """What an export holds, or what of it was read.

    Attributes:
        users: users with a line.
        uses: uses that can be had, by kind's letter (f, p); accepts as s.
        gone: uses that were held, spent or void, by kind's letter.
        forever: long-term accepts, which nobody counts.
        audiences: name → members.
        suppressed: reason → openids, or digests.
        keys: API keys.
    """

    users: int = 0
    uses: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    forever: int = 0
    audiences: Counter[str] = field(default_factory=Counter)
    suppressed: Counter[str] = field(default_factory=Counter)
    keys: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class User:
    """What a line says of a user."""

    openid: str
    uses: Mapping[str, int] = field(default_factory=dict)
    gone: Mapping[str, int] = field(default_factory=dict)
    accepts: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return it as it is written, without what is empty."""
        found = {"uses": self.uses, "gone": self.gone}
        found |= {"accepts": self.accepts, "marks": self.marks}  # type: ignore[dict-item]
        return written({"user": self.openid, **{name: one for name, one in found.items() if one}})

    @property
    def weight(self) -> int:
        """How many things there are to store."""
        return 1 + len(self.uses) + len(self.gone) + 2 * len(self.accepts) + 4 * len(self.marks)


@dataclass(frozen=True, slots=True)
class Members:
    """Openids of an audience, or of a list of the suppressed."""

    of: str
    openids: list[str]

    def line(self, what: str) -> bytes:
        """Return it as it is written; what: ``audience`` or ``suppressed``."""
        return written({what: self.of, "openids": self.openids})


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the forgotten who were suppressed, of one bucket of the deployment exported."""

    bucket: int
    digests: list[str]

    def line(self) -> bytes:
        """Return it as it is written."""
        found = {"bucket": self.bucket, "digests": self.digests}
        return written({"suppressed": Reason.FORGOTTEN.value, **found})


@dataclass(frozen=True, slots=True)
class Key:
    """What may be shown of an API key."""

    shown: Mapping[str, Any]

    def line(self) -> bytes:
        """Return it as it is written."""
        return written({"key": self.shown})


@dataclass(frozen=True, slots=True)
class Footer:
    """The last line.

    Attributes:
        lines: before it, the header among them.
        sha256: of these, hex.
        sums: what they hold.
        ledger: of the app where it was exported, when it ended.
    """

    lines: int
    sha256: str
    sums: Mapping[str, Any]
    ledger: Mapping[str, Any]

    def line(self) -> bytes:
        """Return it as it is written."""
        return written({"end": {name: getattr(self, name) for name in self.__slots__}})


Line = User | Members | Digests | Key | Footer


class BadLineError(ValueError):
    """What a line is not; one sentence."""


def read(line: bytes) -> tuple[str, Line]:
    """Read a line after the first; returns its kind (``user``, ``audience`` …) and what it says.

    Raises:
        BadLineError: it is none.
    """
    found = parsed(line)
    if not isinstance(found, dict):
        raise BadLineError("no JSON object")
    for kind, make in _READERS.items():
        if kind in found:
            return kind, make(found)
    raise BadLineError("neither a user nor an audience nor a list nor a key nor the end")


def _user(found: dict[str, Any]) -> User:
    given = {
        "uses": _mapping(found, "uses", _MOST_USES_READ, _MEMBER.fullmatch, _is_moment),
        "gone": _mapping(found, "gone", _MOST_USES_READ, _MEMBER.fullmatch, _is_moment),
        "accepts": _mapping(found, "accepts", _MOST_TEMPLATES, TEMPLATE_ID.fullmatch, _is_count),
        "marks": _mapping(found, "marks", _MOST_TEMPLATES, TEMPLATE_ID.fullmatch, _is_mark),
    }
    return User(_openid(found["user"]), **given)


def _audience(found: dict[str, Any]) -> Members:
    name = found["audience"]
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == "all":
        raise BadLineError("audience: no name of one")
    return Members(name, [_openid(one) for one in _list(found, "openids")])


def _suppressed(found: dict[str, Any]) -> Members | Digests:
    reason = found["suppressed"]
    if not isinstance(reason, str) or reason not in set(Reason):
        raise BadLineError("suppressed: no reason")
    if reason != Reason.FORGOTTEN:
        return Members(reason, [_openid(one) for one in _list(found, "openids")])
    bucket, digests = found.get("bucket"), _list(found, "digests")
    if type(bucket) is not int or not 0 <= bucket < 2**20:
        raise BadLineError("bucket: no number of one")
    if not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in digests):
        raise BadLineError("digests: SHA-1 in hex each")
    return Digests(bucket, digests)


def _key(found: dict[str, Any]) -> Key:
    shown = found["key"]
    if not isinstance(shown, dict) or len(written(shown)) > _MOST_KEY_BYTES:
        raise BadLineError(f"key: an object of at most {_MOST_KEY_BYTES:,} bytes")
    scopes = shown.get("scopes")
    texts = [shown.get("name"), *(scopes if isinstance(scopes, list) else [None])]
    if not all(isinstance(one, str) and one.isprintable() for one in texts):
        raise BadLineError("key: no name, or no list of scopes")
    return Key(shown)


def _footer(found: dict[str, Any]) -> Footer:
    try:
        footer = Footer(**found["end"])
    except TypeError:
        raise BadLineError("end: lacks something") from None
    if type(footer.lines) is not int or not isinstance(footer.sums, dict):
        raise BadLineError("end: was changed")
    return footer


_READERS: Final[Mapping[str, Callable[[dict[str, Any]], Line]]] = {
    "user": _user,
    "audience": _audience,
    "suppressed": _suppressed,
    "key": _key,
    "end": _footer,
}


def _openid(value: object) -> str:
    if not isinstance(value, str) or not OPENID.fullmatch(value):
        raise BadLineError("openid: 1-64 letters, digits, _ or -")
    return value


def _list(found: dict[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    if not isinstance(value, list) or len(value) > _MOST_OPENIDS_READ:
        raise BadLineError(f"{name}: a list of at most {_MOST_OPENIDS_READ:,}")
    return value


def _mapping(
    found: dict[str, Any], name: str, most: int, is_name: Any, is_value: Any
) -> dict[str, Any]:
    value = found.get(name, {})
    if not isinstance(value, dict) or len(value) > most:
        raise BadLineError(f"{name}: an object of at most {most:,}")
    for key, one in value.items():
        if not is_name(key) or not is_value(one):
            raise BadLineError(f"{name}: {key[:40]!r} is wrong")
    return value


def _is_moment(value: object) -> bool:
    return type(value) is int and 0 < value < _MOST_MS


def _is_count(value: object) -> bool:
    return type(value) is int and (value == -1 or 0 < value <= 1_000_000)


def _is_mark(value: object) -> bool:
    return isinstance(value, str) and _MARK.fullmatch(value) is not None


def parsed(line: bytes) -> object:
    """Return what a line holds as JSON, or None."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def written(found: Mapping[str, Any]) -> bytes:
    """Return an object as a line."""
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)
