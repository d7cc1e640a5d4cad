"""A shop driven step by step (see `shop`)."""

import pytest
import redis
from shop import Shop

from producers.settings import Settings


@pytest.fixture
def shop(client: "redis.Redis", settings: Settings) -> Shop:
    """Give the app `shop` with all its lanes, empty."""
    return Shop(client, settings)
