"""What the doctor says of the templates that the settings name."""

from collections.abc import Callable

import pytest
import redis
from clerks import shelve

from producers.care import templates
from producers.care.check import Health
from producers.settings import Settings
from producers.store import keys
from producers.templates import Template

T, LONG = Template("T1"), Template("L1", kind="long_term")


@pytest.mark.parametrize(
    ("app", "health", "found"),
    [
        ({}, Health.OK, "2, 1 long-term"),
        ({"subscribe_templates": ["T1"], "long_term_templates": ["L1"]}, Health.OK, "2, 1"),
        ({"subscribe_templates": ["T1", "TX"]}, Health.BAD, "name TX, which WeChat does not list"),
        ({"long_term_templates": ["LX"]}, Health.BAD, "name LX"),
        ({"long_term_templates": ["O1"]}, Health.WARN, "O1, which WeChat lists as one-off"),
    ],
)
def test_settings_are_compared_with_the_list(
    client: "redis.Redis",
    make_settings: Callable[..., Settings],
    app: dict[str, list[str]],
    health: Health,
    found: str,
) -> None:
    more = [Template("O1", kind="one_off")] if health is Health.WARN else []
    shelve(client, T, LONG, *more)
    (check,) = templates.examine(client, make_settings(app=app))
    assert (check.name, check.health) == ("app shop: templates", health)
    assert found in check.found


def test_a_list_that_nobody_could_read_is_said_and_one_that_nobody_needed_is_not(
    client: "redis.Redis", settings: Settings
) -> None:
    assert list(templates.examine(client, settings)) == []
    assert not client.exists(keys.TEMPLATES_DUE)  # the doctor asks for nothing
    client.hset(keys.templates("shop", "subscribe"), "trouble", "HTTP 404")
    client.pexpire(keys.templates("shop", "subscribe"), 60_000)
    (check,) = templates.examine(client, settings)
    assert (check.health, "HTTP 404" in check.found) == (Health.SKIPPED, True)
