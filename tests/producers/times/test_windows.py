"""Send windows: open at the right moments, across midnight and over moved clocks."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.times.moments import in_words, local, moment_ms, read_moment
from producers.times.windows import Window

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")


def around(text: str, now: str, zone: ZoneInfo = SHANGHAI) -> list[str]:
    """Return when a window opens and closes, as its clocks show it."""
    now_ms = moment_ms("now", read_moment("now", now), zone)
    return [in_words(local(at, zone)) for at in Window.read(text, zone).around(now_ms)]


@pytest.mark.parametrize(
    ("text", "now", "opens", "closes"),
    [
        ("08:00-22:00", "2026-12-01 12:00", "2026-12-01 08:00", "2026-12-01 22:00"),
        ("08:00-22:00", "2026-12-01 07:59", "2026-12-01 08:00", "2026-12-01 22:00"),
        ("08:00-22:00", "2026-12-01 08:00", "2026-12-01 08:00", "2026-12-01 22:00"),
        ("08:00-22:00", "2026-12-01 22:00", "2026-12-02 08:00", "2026-12-02 22:00"),
        ("20:00-02:00", "2026-12-01 01:00", "2026-11-30 20:00", "2026-12-01 02:00"),
        ("20:00-02:00", "2026-12-01 02:00", "2026-12-01 20:00", "2026-12-02 02:00"),
        ("08:00-24:00", "2026-12-01 23:59", "2026-12-01 08:00", "2026-12-02 00:00"),
        ("00:00-06:00", "2026-12-01 23:59", "2026-12-02 00:00", "2026-12-02 06:00"),
    ],
)
def test_the_window_that_is_open_or_the_next_one(
    text: str, now: str, opens: str, closes: str
) -> None:
    assert around(text, now) == [opens, closes]


@pytest.mark.parametrize("text", ["8-22", "08:00", "08:00-25:00", "24:00-08:00", "08:00–22:00"])
def test_what_is_no_window_is_told_with_a_sample(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no window: .* such as 08:00-22:00"):
        Window.read(text, SHANGHAI)


@pytest.mark.parametrize("text", ["08:00-08:00", "00:00-24:00"])
def test_a_window_without_an_end_is_to_be_left_out(text: str) -> None:
    with pytest.raises(ValueError, match="leave it out to send at any time"):
        Window.read(text, SHANGHAI)


def test_over_moved_clocks_it_is_the_shorter_one() -> None:
    assert around("02:30-08:00", "2026-03-29 01:00", BERLIN)[0] == "2026-03-29 03:30"
    assert around("01:00-02:30", "2026-03-29 01:00", BERLIN)[1] == "2026-03-29 01:30"
    opens = around("02:10-08:00", "2026-10-25T02:20+02:00", BERLIN)
    assert opens[0] == "2026-10-25 02:10"
    second = moment_ms("at", read_moment("at", "2026-10-25T02:10+01:00"), BERLIN)
    at = moment_ms("at", read_moment("at", "2026-10-25T02:20+02:00"), BERLIN)
    assert Window.read("02:10-08:00", BERLIN).around(at)[0] == second


@given(
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),  # noqa: DTZ001
    st.sampled_from([SHANGHAI, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("UTC")]),
)
def test_within_it_every_clock_on_the_wall_shows_its_hours(
    opens: int, closes: int, now: datetime, zone: ZoneInfo
) -> None:
    if opens == closes % 1440:
        return
    window = Window(opens, closes, zone)
    now_ms = round(now.replace(tzinfo=zone).timestamp() * 1000)
    from_ms, until_ms = window.around(now_ms)
    assert now_ms < until_ms
    assert 0 < until_ms - from_ms <= 25 * 3_600_000
    for at_ms in (from_ms, (from_ms + until_ms) // 2, until_ms - 1):
        shown = local(at_ms, zone)
        minutes = shown.hour * 60 + shown.minute
        over = closes <= opens
        inside = minutes >= opens or minutes < closes if over else opens <= minutes < closes
        assert inside, (shown, opens, closes, zone)
    assert from_ms - now_ms < timedelta(days=3) / timedelta(milliseconds=1)
