"""Whole deployments: real units by the Procfile's command, the sandbox, a Valkey."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Stage, Stages, stages_at


@pytest.fixture
def stages(valkey_url: str, tmp_path: Path) -> Iterator[Stages]:
    """Give a maker of stages; none of their units is left behind."""
    with stages_at(valkey_url, tmp_path) as stages:
        yield stages


@pytest.fixture
def stage(stages: Stages, lanes: int) -> Stage:
    """Give one deployment."""
    return stages(lanes=lanes)


@pytest.fixture
def slow_stage(stages: Stages, lanes: int) -> Stage:
    """Give one that sends 300 a second: slow enough to step in."""
    return stages(lanes=lanes, app={"rate_per_second": 300})
