"""What is refused about times, and with which word: the same by the command line and over HTTP.

Rows that are refused stand in ``rows/test_rows_reading``.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cli_runs import Ran, run
from web_house import BROADCASTS, TEMPLATE, Caller, House

BERLIN = "Europe/Berlin"
GAP = "2027-03-28 02:30"
TWICE = "2027-10-31 02:30"
SPEC: dict[str, Any] = {
    "channel": "template",
    "template_id": TEMPLATE,
    "audience": "all",
    "data": "a,b",
}
CREATE = (
    *("broadcast", "-a", "shop", "--channel", "template", "--template-id", TEMPLATE),
    *("--audience", "all", "--data", "a,b"),
)

MOMENTS = {
    "clocks that are put forward": ({"at": GAP, "zone": BERLIN}, "at: ", GAP, "does not exist in"),
    "clocks that are put back": (
        {"at": TWICE, "zone": BERLIN},
        "comes twice in Europe/Berlin",
        "write 2027-10-31T02:30+02:00 or 2027-10-31T02:30+01:00",
    ),
    "an end that clocks skip": ({"until": GAP, "zone": BERLIN}, "until: ", "does not exist in"),
    "an end that comes twice": ({"until": TWICE, "zone": BERLIN}, "until: ", "comes twice in"),
    "a start that is past": ({"at": "2026-01-01 21:00"}, "is past; it is ", "Asia/Shanghai now"),
    "no moment": ({"at": "tonight"}, "at 'tonight'", "such as 2026-12-01 21:00"),
    "a date without a time": ({"at": "2027-01-01"}, "a date and a time"),
    "too far ahead": ({"at": "2090-01-01 21:00"}, "at most 30 days"),
    "an unknown zone": ({"at": "2027-01-01 21:00", "zone": "Asia/Peking"}, "'Asia/Peking'"),
    "a zone alone": ({"zone": BERLIN}, "zone: only with at or until"),
}
CRONS = {
    "four fields": ("0 21 * *", "wrong number of fields", "five fields: minute, hour"),
    "a sixth one": ("0 0 21 * * *", "wrong number of fields"),
    "an hour that there is not": ("0 25 * * *", "'0 25 * * *': bad hour"),
    "a day that never comes": ("0 0 30 2 *", "'0 0 30 2 *': ", "five fields"),
    "a word": ("@daily", "'@daily'", "such as 0 21 * * *"),
}
WINDOWS = {
    "one time": ("08:00", "is no window", "such as 08:00-22:00"),
    "an hour that there is not": ("25:00-26:00", "is no window"),
    "no zeros": ("8-22", "is no window"),
    "no end": ("22:00-22:00", "has no end", "leave it out to send at any time"),
}


def options(times: dict[str, str]) -> list[str]:
    return [part for name, text in times.items() for part in (f"--{name}", text)]


def is_told(ran: Ran, words: tuple[str, ...]) -> None:
    assert ran.code == 2
    assert all(word in ran.json["error"] for word in words), ran.json
    assert not any(line.startswith("Traceback") for line in ran.err.splitlines())


def nothing_was_made(shop: Caller) -> None:
    assert shop.get(BROADCASTS).json["broadcasts"] == []
    assert shop.get("/v1/apps/shop/series").json["series"] == []


@pytest.mark.parametrize("name", MOMENTS)
def test_a_moment_that_cannot_be_is_refused_with_the_same_word(
    house: House, shop: Caller, name: str
) -> None:
    times, *words = MOMENTS[name]
    is_told(run(house.settings, *CREATE, *options(times), "--json"), tuple(words))
    got = shop.post(BROADCASTS, {**SPEC, **times})
    assert got.kind == "invalid"
    assert all(word in got.json["detail"] for word in words), got.json
    dry = shop.post(f"{BROADCASTS}/dry-run", {**SPEC, **times})
    assert all(word in " ".join(dry.json["faults"]) for word in words), dry.json
    nothing_was_made(shop)


@pytest.mark.parametrize("name", CRONS)
def test_a_cron_that_is_none_is_refused_with_the_same_word(
    house: House, shop: Caller, name: str
) -> None:
    every, *words = CRONS[name]
    asked = (*CREATE, "--every", every, "--key", "evening", "--json")
    is_told(run(house.settings, *asked), tuple(words))
    got = shop.post("/v1/apps/shop/series", {**SPEC, "name": "evening", "every": every})
    assert got.kind == "invalid"
    assert all(word in got.json["detail"] for word in words), got.json
    dry = shop.post(f"{BROADCASTS}/dry-run", {**SPEC, "name": "evening", "every": every})
    assert all(word in " ".join(dry.json["faults"]) for word in words), dry.json
    nothing_was_made(shop)


def test_a_scheduled_one_is_moved_to_no_moment_that_cannot_be(house: House, shop: Caller) -> None:
    ahead = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 7200, UTC).isoformat()
    somebody_gives(shop)
    broadcast = shop.post(BROADCASTS, {**SPEC, "at": ahead}).json["id"]
    for name in ("clocks that are put forward", "clocks that are put back", "too far ahead"):
        times, *words = MOMENTS[name]
        moved = run(house.settings, "reschedule", broadcast, *options(times), "--json")
        is_told(moved, tuple(words))
        got = shop.post(f"{BROADCASTS}/{broadcast}/reschedule", times)
        assert all(word in got.json["detail"] for word in words), got.json
    assert shop.get(f"{BROADCASTS}/{broadcast}").json["state"] == "scheduled"


def somebody_gives(shop: Caller) -> None:
    uploads = [{"openid": "o1", "formIds": ["f1"]}]
    assert shop.post("/v1/apps/shop/permits", uploads).status == 200


@pytest.mark.parametrize("command", [("list", "-a", "shop"), ("web",)], ids=["shell", "service"])
@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_that_is_none_stops_the_start_and_says_what_to_write(
    house: House, monkeypatch: pytest.MonkeyPatch, name: str, command: tuple[str, ...]
) -> None:
    text, *words = WINDOWS[name]
    monkeypatch.setenv("WXB_APPS__SHOP__SEND_WINDOW", text)
    ran = run(house.settings, *command)
    assert ran.code == 2
    assert "WXB_APPS__SHOP__SEND_WINDOW" in ran.err or "send_window" in ran.err
    assert all(word in ran.err for word in (text, *words)), ran.err


def test_a_window_across_midnight_is_kept_and_said_when_it_opens(
    open_house: Callable[..., House],
) -> None:
    noon = 12 - datetime.now(UTC).hour  # the zone in which it is about noon now
    zone = f"Etc/GMT{-noon:+d}"
    app = {"appid": "wx0000000000000001", "secret": "s", "send_window": "20:00-02:00", "zone": zone}
    house = open_house(apps={"shop": app})
    shop = house.caller()
    somebody_gives(shop)
    dry = shop.post(f"{BROADCASTS}/dry-run", SPEC).json
    assert dry["window"] == "20:00-02:00"
    opens = datetime.fromtimestamp(dry["opens_at_ms"] / 1000, UTC).timestamp()
    assert 7 * 3600 <= opens - dry["at_ms"] / 1000 <= 8 * 3600
    assert any(f"20:00:00 {zone}" in note for note in dry["notes"])
    made = shop.post(BROADCASTS, SPEC).json["id"]
    waits = "waiting for the window, opens 20:00"
    assert shop.get(f"{BROADCASTS}/{made}").json["waiting"] == waits
    assert waits in run(house.settings, "status", made).out
