"""Appids: whose users an alias stands for, as the first worker that knew it has said.

All that is stored of an app is stored under its alias, and the openids in it are those of one
mini-program: under another appid each of them would be refused, or worse. While it runs a process
refuses such a change of its apps' file by itself; what a restart brings is seen here.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from producers import logs
from producers.logs.events import AliasReassigned
from producers.settings import AppSettings, Settings
from producers.store import Client, keys
from producers.store.retry import repeat, repeat_all

_AT_ONCE: Final = 200


class Appids:
    """Those of a deployment. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def tell(self, apps: Mapping[str, AppSettings]) -> None:
        """Say which mini-program each alias is, where nobody has; once more changes nothing.

        Raises:
            StoreUnavailableError: Redis did not answer; say it again.
        """
        aliases = list(apps)
        for start in range(0, len(aliases), _AT_ONCE):
            some = aliases[start : start + _AT_ONCE]

            def write(pipeline: Any, some: list[str] = some) -> None:
                for alias in some:
                    pipeline.hsetnx(keys.APPIDS, alias, apps[alias].appid)

            repeat_all("saying which apps there are", self._client, write)

    def others(self) -> dict[str, str]:
        """Return alias → appid of those that the settings say otherwise.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        apps = self._settings.apps.now
        read = partial(self._client.hmget, keys.APPIDS, list(apps))
        known = repeat("reading which apps there are", read)
        return {
            alias: appid
            for (alias, app), appid in zip(apps.items(), known, strict=True)
            if appid is not None and appid != app.appid
        }

    def reassign(self, alias: str) -> str:
        """Let an alias stand for the mini-program that the settings name; returns which it was.

        For an appid that was a typing error; of another mini-program nothing that is stored is
        good.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer; say it again.
        """
        appid = self._settings.app(alias).appid
        read = partial(self._client.hget, keys.APPIDS, alias)
        before = repeat("reading which app it was", read) or ""
        repeat("saying which app it is", partial(self._client.hset, keys.APPIDS, alias, appid))
        logs.emit(AliasReassigned(alias, before, appid))
        return str(before)
