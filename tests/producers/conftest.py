"""A lane driven by its raw scripts (see `lane_driver`), a shop driven step by step (see `shop`)."""

import pytest
import redis
from lane_driver import Lane
from shop import Shop

from producers.settings import Settings


@pytest.fixture
def lane(client: "redis.Redis") -> Lane:
    """Give lane 0 of the app `shop`, empty, its clock at the top of an hour."""
    return Lane(client)


@pytest.fixture
def shop(client: "redis.Redis", settings: Settings) -> Shop:
    """Give the app `shop` with all its lanes, empty."""
    return Shop(client, settings)
