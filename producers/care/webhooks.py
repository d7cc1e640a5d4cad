"""What the doctor checks of webhooks: whether what happens is told, and taken."""

from collections.abc import Iterator

from producers.care.check import Check, Health
from producers.settings import Settings
from producers.store import Client, keys
from producers.webhooks import DeadLetters
from producers.webhooks.wishes import Wishes


def examine(client: Client, settings: Settings) -> Iterator[Check]:
    """Check the webhooks of each app that wants any."""
    letters, wishes = DeadLetters(client, settings), Wishes(client, settings)
    for app in settings.apps:
        if wanted := wishes.wanted(app):
            yield _check(
                f"app {app}: webhooks", letters, app, client.hget(keys.hooks(0), app), wanted
            )


def _check(name: str, letters: DeadLetters, app: str, told: str | None, wanted: str) -> Check:
    box = letters.box(app)
    found = f"{box.waiting:,} wait, {box.dead:,} dead letters ({box.dead_today:,} in the last day)"
    if box.dropped:
        found += f", {box.dropped:,} without room"
    if told != wanted:
        advice = "no worker with these settings has told Redis what is wanted: start one anew"
        return Check(name, Health.WARN, found, advice)
    if box.dead_today or box.dropped:
        advice = (
            f"your service does not take them: mend it, `wxbroadcast webhooks list --app {app}`"
        )
        return Check(name, Health.WARN, found, f"{advice}, then replay")
    return Check(name, Health.OK, found)
