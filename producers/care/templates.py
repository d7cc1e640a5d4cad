"""What the doctor checks of templates: whether those that the settings name are the app's."""

from collections.abc import Iterator
from typing import Final

from producers.care.check import Check, Health
from producers.settings import AppSettings, Settings
from producers.store import Client
from producers.templates import Catalogue, Templates

_NAMED: Final = 5
"""Templates that are named."""


def examine(client: Client, settings: Settings) -> Iterator[Check]:
    """Check the templates that each app's settings name, by the list that was read last.

    Of an app whose list was never needed there is no check.
    """
    templates = Templates(client, settings)
    for app, own in settings.apps.items():
        found = templates.look(app)
        if found.is_known or found.trouble:
            yield _check(f"app {app}: templates", found, own)


def _check(name: str, found: Catalogue, own: AppSettings) -> Check:
    if not found.is_known:
        said = f"WeChat did not list them: {found.trouble}"
        return Check(name, Health.SKIPPED, said, "nothing is refused for its template meanwhile")
    asked = dict.fromkeys((*own.subscribe_templates, *own.long_term_templates))
    lacking = [one for one in asked if found.lacks(one)]
    if lacking:
        return Check(
            name,
            Health.BAD,
            f"the settings name {_some(lacking)}, which WeChat does not list",
            "correct subscribe_templates or long_term_templates; if one was just added: "
            f"`wxbroadcast templates --app {found.app} --refresh`",
        )
    one_off = [
        one
        for one in own.long_term_templates
        if found.templates[one].kind and one not in found.long_term
    ]
    if one_off:
        return Check(
            name,
            Health.WARN,
            f"long_term_templates names {_some(one_off)}, which WeChat lists as one-off",
            "take it out: its accepts are one message each, and WeChat refuses the second",
        )
    return Check(name, Health.OK, f"{len(found.templates):,}, {len(found.long_term):,} long-term")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
