"""The apps of a deployment, as they are now: the one thing in the settings that may change.

A mapping, alias → `AppSettings`, that everybody shares who was given the settings. Where they come
from a file (`apps_file`), whoever watches it puts all of them in place at once; what was read
before that goes on with what it has read, for an app's settings are frozen.
"""

import hashlib
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Annotated, Final

import orjson
from pydantic import AfterValidator, Field, PlainSerializer, SecretStr

from producers.settings.app import AppSettings

ALIAS: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"

Named = dict[Annotated[str, Field(pattern=ALIAS)], AppSettings]


class Apps(Mapping[str, AppSettings]):
    """See the module. Safe to share between threads."""

    def __init__(self, apps: Mapping[str, AppSettings] | None = None) -> None:
        self._now: Mapping[str, AppSettings] = dict(apps or {})
        self._digest: tuple[Mapping[str, AppSettings], str] | None = None

    @property
    def now(self) -> Mapping[str, AppSettings]:
        """The apps of this moment: a mapping that stays so; after a change it is another one."""
        return self._now

    def put(self, apps: Mapping[str, AppSettings]) -> None:
        """Put others in the place of all; what did not change stays the very same object."""
        before = self._now
        self._now = {
            alias: before[alias] if before.get(alias) == app else app for alias, app in apps.items()
        }

    @property
    def digest(self) -> str:
        """What tells whether two processes have the same apps, secrets included.

        64 bits of a hash of all that is set: whoever wanted to try a guess at one secret by it
        would have to know all the others, each AppSecret among them.
        """
        known, now = self._digest, self._now
        if known is None or known[0] is not now:
            known = self._digest = (now, _digest(now))
        return known[1]

    def __getitem__(self, alias: str) -> AppSettings:
        return self._now[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    def items(self) -> ItemsView[str, AppSettings]:
        """Return those of this moment: another one does not come in between."""
        return self._now.items()

    def values(self) -> ValuesView[AppSettings]:
        """As `items`."""
        return self._now.values()

    def __repr__(self) -> str:
        return f"Apps({', '.join(self._now)})"


def _plain_dict(apps: Mapping[str, AppSettings]) -> dict[str, AppSettings]:
    """Return the apps as a dict; pydantic 2.7 cannot look at the type itself."""
    return dict(apps)


if TYPE_CHECKING:
    AppsField = Apps
else:  # variables with nested names are read by the type of a dict
    AppsField = Annotated[Named, AfterValidator(Apps), PlainSerializer(_plain_dict)]


def _digest(apps: Mapping[str, AppSettings]) -> str:
    told = [
        [alias, {name: getattr(app, name) for name in AppSettings.model_fields}]
        for alias, app in sorted(apps.items())
    ]
    text = orjson.dumps(told, default=_plain, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=8, person=b"wxb apps").hexdigest()


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
