"""A running service on an empty database: two apps, `shop` and `cafe`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from web_house import APPS, Caller, House, opened

from producers.settings import Settings


@pytest.fixture
def open_house(
    client: Any, make_settings: Callable[..., Settings], lanes: int
) -> Iterator[Callable[..., House]]:
    """Give a maker of running services; settings that differ are its arguments."""
    with ExitStack() as stack:

        def make(**changes: Any) -> House:
            settings = make_settings(**{"apps": APPS, "lanes": lanes, **changes})
            return stack.enter_context(opened(settings))

        yield make


@pytest.fixture
def house(open_house: Callable[..., House]) -> House:
    """Give a running service."""
    return open_house()


@pytest.fixture
def shop(house: House) -> Caller:
    """Give a caller who may do everything at `shop`, and nothing elsewhere."""
    return house.caller()
