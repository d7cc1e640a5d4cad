"""What is logged."""

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from producers.logs import lines as log_lines


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Give the events that are logged."""
    log_lines._state.clear()
    with capture_logs() as captured:
        yield captured
