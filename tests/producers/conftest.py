"""A lane that is driven by its raw scripts (see `lane_driver`)."""

import pytest
import redis
from lane_driver import Lane


@pytest.fixture
def lane(client: "redis.Redis") -> Lane:
    """Give lane 0 of the app `shop`, empty, its clock at the top of an hour."""
    return Lane(client)
