"""The layout in Redis: with which lanes and buckets the deployment was born, and what it has now.

What is not set is as the deployment has it; what is set otherwise is an error, for its keys would
be looked for where they are not.
"""

import redis

from producers.errors import LayoutMismatchError, StoreUnavailableError
from producers.settings import Layout, Settings
from producers.settings.layout import FIELDS
from producers.store import keys, trouble
from producers.store.connection import Client
from producers.store.lanes.fence import QUESTION, layout_of

LAYOUT = 1
"""Version of the key layout; a deployment of another one is refused."""
NUMBERED = 2
"""That of a deployment whose lanes were changed, where earlier versions would count them wrong."""


def check_layout(client: Client, settings: Settings) -> None:
    """Give birth to the deployment, or check that it has these lanes and buckets.

    Those that are not set are taken from the deployment. One attempt: a start says at once what is
    wrong.

    Raises:
        LayoutMismatchError: it has others; the message says what to set.
        StoreUnavailableError: Redis did not answer, or cannot; the message says what to change.
    """
    try:
        compare_layout(client, settings)
    except redis.RedisError as error:
        raise StoreUnavailableError(trouble.in_words(error)) from error


def compare_layout(client: Client, settings: Settings) -> None:
    """As `check_layout`; what Redis raises comes as it is.

    It writes only what is not there, so that a Redis which is full or a replica can be read.
    Several threads may do it at once for the same settings.
    """
    told = settings.model_fields_set
    mine = {"lanes": settings.lanes, "buckets": settings.buckets, "layout": LAYOUT}
    born = client.hgetall(keys.DEPLOYMENT)
    if not mine.keys() <= born.keys():
        for field, value in mine.items():
            client.hsetnx(keys.DEPLOYMENT, field, str(value))
        born = client.hgetall(keys.DEPLOYMENT)
    layout = Layout.read({field: born.get(field) for field in FIELDS})
    good = {
        "lanes": {layout.count, layout.towards or layout.count},
        "buckets": {layout.buckets},
        "layout": {LAYOUT, NUMBERED},
    }
    faults = [
        f"WXB_{field.upper()} is {value}, this deployment has {born[field]}"
        for field, value in mine.items()
        if (field == "layout" and int(born[field]) not in good[field])
        or (field in told and value not in good[field])
    ]
    if faults:
        raise LayoutMismatchError("; ".join(faults) + ": unset it, or set the value it has")
    settings.live_in(layout)


def follow(client: Client, settings: Settings) -> bool:
    """Learn which lanes there are now; returns whether there are others than were known.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    before = settings.layout
    layout = layout_of(client.execute_command(*QUESTION))
    if layout is not None:
        settings.live_in(layout)
    return settings.layout != before


def is_older(client: Client, settings: Settings) -> bool:
    """Say whether Redis knows of fewer divisions than this process: it forgot, or is a backup.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    layout = layout_of(client.execute_command(*QUESTION))
    return layout is not None and layout.age < settings.layout.age
