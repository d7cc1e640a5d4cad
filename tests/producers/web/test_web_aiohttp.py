"""The service starts on no aiohttp that leaves its clients unbounded."""

import aiohttp
import pytest
from cli_runs import run

from producers.settings import Settings
from producers.web import server

OLD = tuple(map(int, aiohttp.__version__.split(".")[:3])) < server._AIOHTTP


@pytest.mark.skipif(not OLD, reason="for the oldest versions (.ci/run)")
def test_the_service_says_which_aiohttp_it_needs(settings: Settings) -> None:
    ran = run(settings, "web", "--port", "0")
    assert ran.code == 2
    assert "aiohttp>=3.14.4" in ran.err


@pytest.mark.skipif(OLD, reason="for the newest versions")
def test_the_aiohttp_that_is_installed_will_do() -> None:
    server.check_aiohttp()
