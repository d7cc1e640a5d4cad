"""Moments: what people write, in a zone, is one moment or is refused with a clear word."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from producers.errors import InvalidInputError
from producers.times.moments import in_words, local, moment_ms, read_moment
from producers.times.zones import zone_of

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 12, 1, 13, tzinfo=UTC)


def ms(given: Any, zone: ZoneInfo = SHANGHAI) -> int:
    return moment_ms("at", read_moment("at", given), zone)


@pytest.mark.parametrize(
    "given",
    [
        "2026-12-01 21:00",
        "2026-12-01T21:00:00",
        " 2026-12-01T21:00+08:00 ",
        "2026-12-01T13:00Z",
        datetime(2026, 12, 1, 21),  # noqa: DTZ001
        datetime(2026, 12, 1, 14, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_a_moment_is_local_to_the_zone_unless_it_has_an_offset(given: Any) -> None:
    assert ms(given) == AT.timestamp() * 1000
    assert in_words(local(ms(given), SHANGHAI)) == "2026-12-01 21:00"


@pytest.mark.parametrize("given", ["", "tomorrow", "2026-12-01", "21:00", "2026-13-01 21:00", 7])
def test_what_is_no_moment_is_told_with_a_sample(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="a date and a time, such as 2026-12-01 21:00"):
        read_moment("until", given)


def test_a_year_that_is_a_slip_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="a year from 2000 to 2099"):
        read_moment("at", "0226-12-01 21:00")


def test_a_time_over_which_clocks_are_put_forward_does_not_exist() -> None:
    with pytest.raises(InvalidInputError, match="2026-03-29 02:30 does not exist in Europe/Berlin"):
        ms("2026-03-29 02:30", BERLIN)
    assert ms("2026-03-29 03:00", BERLIN) - ms("2026-03-29 01:59", BERLIN) == 60_000


def test_a_time_that_comes_twice_is_to_be_written_with_its_offset() -> None:
    with pytest.raises(InvalidInputError, match="comes twice in Europe/Berlin") as refused:
        ms("2026-10-25 02:30", BERLIN)
    first, second = str(refused.value).rpartition("write ")[2].split(" or ")
    assert (first, second) == ("2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00")
    assert ms(second, BERLIN) - ms(first, BERLIN) == 3_600_000


@pytest.mark.parametrize("name", ["Asia/Shangai", "", "/etc/passwd", "../UTC", "Asia", "a\0b"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"unknown time zone .*; take for instance Asia"):
        zone_of(name)
