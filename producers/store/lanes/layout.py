"""The layout: with how many lanes and buckets the deployment was born, and what the settings say.

What is not set is as the deployment has it; what is set otherwise is an error, for its keys would
be looked for where they are not.
"""

import redis

from producers.errors import LayoutMismatchError, StoreUnavailableError
from producers.settings import Settings
from producers.store import keys, trouble
from producers.store.connection import Client
from producers.store.lanes.fence import QUESTION, RELANING, FencedError, under_way

LAYOUT = 1
"""Version of the key layout; a deployment of another one is refused."""


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
    told = frozenset(settings.model_fields_set)  # before the values: others may take them meanwhile
    mine = {"lanes": settings.lanes, "buckets": settings.buckets, "layout": LAYOUT}
    born = client.hgetall(keys.DEPLOYMENT)
    if not mine.keys() <= born.keys():
        for field, value in mine.items():
            client.hsetnx(keys.DEPLOYMENT, field, str(value))
        born = client.hgetall(keys.DEPLOYMENT)
    if towards := born.get(RELANING):
        raise under_way(born["lanes"], towards)
    has = {field: int(born[field]) for field in mine}
    faults = [
        f"WXB_{field.upper()} is {value}, this deployment has {has[field]}"
        for field, value in mine.items()
        if has[field] != value and (field == "layout" or field in told)
    ]
    if faults:
        raise LayoutMismatchError("; ".join(faults) + ": unset it, or set the value it has")
    settings.live_in(has["lanes"], has["buckets"])


def outlived(client: Client, settings: Settings) -> FencedError | None:
    """Return why a process that lives in these lanes must begin anew, None if it need not.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    lanes, towards = client.execute_command(*QUESTION)
    if towards:
        why = f"the lanes are being changed from {lanes} to {towards}"
        return FencedError(why, int(towards))
    if lanes and int(lanes) != settings.lanes:
        why = f"the deployment has {lanes} lanes now, not {settings.lanes}"
        return FencedError(why, int(lanes))
    return None
