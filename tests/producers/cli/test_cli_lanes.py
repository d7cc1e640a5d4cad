"""``wxbroadcast lanes`` that does not come to its end says what stands still, and what goes on."""

import pytest
from cli_runs import run
from redis import OutOfMemoryError

from producers.relaning import Relaned, Relaner
from producers.settings import Settings

AGAIN = "a lane may stand still until it is run again: see `wxbroadcast doctor`"


@pytest.mark.parametrize("plan", [False, True])
def test_who_redis_fails_is_told_what_stands_still(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, plan: bool
) -> None:
    def fails(_self: object, _lanes: int) -> None:
        raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    monkeypatch.setattr(Relaner, "plan" if plan else "run", fails)
    ran = run(settings, "lanes", "4", *(["--dry-run"] if plan else []), "--json")
    assert ran.code == 4
    assert "Redis is full" in ran.json["error"]
    assert (AGAIN in ran.json["error"]) is not plan


def test_who_interrupts_it_is_told_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_interrupted(_self: object, _lanes: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Relaner, "run", is_interrupted)
    ran = run(settings, "lanes", "4")
    assert ran.code == 130
    assert AGAIN in ran.err


def test_a_number_that_is_set_is_told_before_it_ends_a_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relaner, "run", lambda _self, lanes: Relaned(1, lanes))
    ran = run(settings, "lanes", "4")
    assert ran.code == 0
    assert "WXB_LANES is 1 here: unset it wherever it is set" in ran.err
    ran = run(settings.model_copy(update={"lanes": 4}), "lanes", "4")
    assert "WXB_LANES" not in ran.err
