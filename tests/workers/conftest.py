"""A lane that is driven by its raw scripts (see `lane_driver`), and what is logged."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from lane_driver import Lane
from structlog.testing import capture_logs

from producers.logs import lines as log_lines


@pytest.fixture
def lane(client: "redis.Redis") -> Lane:
    """Give lane 0 of the app `shop`, empty, its clock at the top of an hour."""
    return Lane(client)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Give the events that are logged."""
    log_lines._state.clear()
    with capture_logs() as captured:
        yield captured
