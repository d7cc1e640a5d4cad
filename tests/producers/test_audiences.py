"""Audiences: files of openids come in as they are, bad rows by number, and nobody twice."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mishaps import lossy_link

from producers import keys, store
from producers.audiences import Audiences, ImportReport
from producers.collect import Collector
from producers.errors import InvalidInputError, NotFoundError, UnknownAppError
from producers.settings import Settings

both_layouts = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def audiences(client: Any, settings: Settings) -> Audiences:
    return Audiences(client, settings)


def members(client: Any, settings: Settings, name: str = "vip") -> list[str]:
    """Return an audience's members, bucket by bucket, so that one in two buckets shows twice."""
    found: list[str] = []
    pipeline = client.pipeline(transaction=False)
    for bucket in range(settings.buckets):
        lane = bucket % settings.lanes
        pipeline.smembers(keys.audience(lane, "shop", name, bucket))
        pipeline.getbit(keys.audience_buckets(lane, "shop", name), bucket)
    answers = pipeline.execute()
    for bucket, (inside, listed) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
        assert all(keys.bucket_of(openid, settings.buckets) == bucket for openid in inside)
        assert listed or not inside
        found += inside
    return sorted(found)


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.rows, report.added, report.known, report.bad


@both_layouts
@pytest.mark.parametrize(
    "rows",
    [
        [b"o1\n", b"o2\n", b"o3\n"],
        [b"o1", b"o2", b"o3"],
        [b"o1\r\n", b"\r\n", b"o2\r\n", b"  o3 \r\n", b"\n"],
        [b"\xef\xbb\xbfo1\n", b"o2\n", b"o3\n"],
        [b"openid\n", b"o1\n", b"o2\n", b"o3\n"],
        [b"\xef\xbb\xbfopenid\r\n", b"o1\r\n", b"o2\r\n", b"o3\r\n"],
        [b"name,OpenID,city\n", b"Ann,o1,x\n", b'"B, C",o2,y\n', b"D,o3\n"],
        [b'"openid","name"\n', b'"o1","Ann"\n', b'"o2","B"\n', b'"o3",""\n'],
        [b"o1,Ann\n", b"o2,B\n", b"o3,C\n"],
        [b'"o1","Ann"\n', b'"o2","B"\n', b'"o3","C"\n'],
        [b'"o1"\n', b'"o2"\n', b'"o3"\n'],
        [b'{"openid": "o1"}\n', b'{"openid": "o2", "name": "B"}\n', b'"o3"\n'],
        [b'"openid"\n', b'"o1"\n', b'"o2"\n', b'"o3"\n'],
    ],
)
def test_every_form_of_a_file_is_read(
    audiences: Audiences, client: Any, settings: Settings, rows: list[bytes]
) -> None:
    assert counts(audiences.import_rows("shop", "vip", rows)) == (3, 3, 0, 0)
    assert members(client, settings) == ["o1", "o2", "o3"]
    assert audiences.count("shop", "vip") == 3


def test_bad_rows_are_reported_by_number(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    rows = [
        b"openid,name\n",
        b"o1,Ann\n",
        b",Nobody\n",
        b"not an openid,B\n",
        b"\n",
        b'{"openid": 7}\n',
        b'{"user": "o9"}\n',
        "用户,C\n".encode(),
        b"\xff\xfe\n",
        b"x" * 65 + b"\n",
        b'{"openid": "o2"\n',
        b"o3,D\n",
    ]
    report = audiences.import_rows("shop", "vip", rows)
    assert counts(report) == (10, 2, 0, 8)
    assert [row for row, _ in report.listed] == [3, 4, 6, 7, 8, 9, 10, 11]
    assert all("openid" in detail for _, detail in report.listed)
    assert members(client, settings) == ["o1", "o3"]


@pytest.mark.parametrize(
    "bad",
    [
        b"two\rlines\n",
        b'"two\rlines"\n',
        b"x" * 200_000 + b"\n",
        b"\x00\n",
        b'"\n',
        b"[]\n",
        b"{\n",
    ],
)
def test_no_bad_row_loses_the_others(audiences: Audiences, bad: bytes) -> None:
    report = audiences.import_rows("shop", "vip", [b"o1\n", bad, b"o2\n"])
    assert counts(report) == (3, 2, 0, 1)
    assert [row for row, _ in report.listed] == [2]


def test_all_bad_rows_are_counted_and_the_first_hundred_listed(audiences: Audiences) -> None:
    report = audiences.import_rows("shop", "vip", [b"no openid\n"] * 250)
    assert (report.bad, len(report.listed)) == (250, 100)
    told = json.loads(json.dumps(report.as_dict()))
    assert (told["rows"], told["added"], told["known"], told["bad"]) == (250, 0, 0, 250)
    assert told["listed"][0]["row"] == 1


@both_layouts
def test_importing_again_adds_only_what_is_new(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    rows = [b"o%d\n" % n for n in range(5000)]
    assert counts(audiences.import_rows("shop", "vip", rows)) == (5000, 5000, 0, 0)
    assert counts(audiences.import_rows("shop", "vip", rows)) == (5000, 0, 5000, 0)
    assert counts(audiences.import_rows("shop", "vip", [b"o1", b"new", b"new"])) == (3, 1, 2, 0)
    assert audiences.count("shop", "vip") == 5001 == len(members(client, settings))


def test_audiences_are_apart(audiences: Audiences, client: Any, settings: Settings) -> None:
    audiences.import_rows("shop", "vip", [b"o1", b"o2"])
    audiences.import_rows("shop", "new", [b"o2"])
    assert members(client, settings, "vip") == ["o1", "o2"]
    assert members(client, settings, "new") == ["o2"]
    assert audiences.count("shop", "all") == 0
    assert audiences.names("shop") == ["all", "new", "vip"]


def test_all_is_kept_by_collecting(audiences: Audiences, client: Any, settings: Settings) -> None:
    assert audiences.names("shop") == ["all"]
    Collector(client, settings).collect("shop", [{"openid": "o1", "formId": "f"}])
    assert audiences.count("shop", "all") == 1


@pytest.mark.parametrize("name", ["", "all", "a b", ".x", "x" * 65, "名", "a:b", "{0}", "a\n"])
def test_a_name_that_is_none_is_refused(audiences: Audiences, client: Any, name: str) -> None:
    before = set(client.scan_iter())
    with pytest.raises(InvalidInputError, match="audience name"):
        audiences.import_rows("shop", name, [b"o1"])
    assert set(client.scan_iter()) == before


def test_unknown_apps_and_audiences_are_named(audiences: Audiences) -> None:
    with pytest.raises(UnknownAppError, match="shoq"):
        audiences.import_rows("shoq", "vip", [b"o1"])
    with pytest.raises(UnknownAppError, match="shoq"):
        audiences.names("shoq")
    with pytest.raises(UnknownAppError, match="shoq"):
        audiences.count("shoq", "all")
    with pytest.raises(NotFoundError, match=r"no audience 'vip' of app 'shop'.*import"):
        audiences.count("shop", "vip")


def test_an_empty_audience_is_one(audiences: Audiences) -> None:
    assert counts(audiences.import_rows("shop", "vip", [])) == (0, 0, 0, 0)
    assert audiences.count("shop", "vip") == 0
    assert audiences.names("shop") == ["all", "vip"]


@both_layouts
def test_progress_is_told_batch_by_batch(audiences: Audiences) -> None:
    told: list[tuple[int, int]] = []
    audiences.import_rows(
        "shop",
        "vip",
        (b"o%d\n" % n for n in range(20_000)),
        lambda so_far: told.append((so_far.rows, so_far.added)),
    )
    assert len(told) > 5
    assert told == sorted(told)
    assert told[-1] == (20_000, 20_000)


@both_layouts
def test_many_imports_at_once_count_each_member_once(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    def run(part: int) -> ImportReport:
        return audiences.import_rows(
            "shop", "vip", [b"o%d" % n for n in range(part * 500, part * 500 + 1000)]
        )

    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(run, range(8)))
    assert sum(report.added for report in reports) == 4500
    assert audiences.count("shop", "vip") == 4500 == len(members(client, settings))


@both_layouts
def test_a_lost_reply_doubles_nobody(client: Any, settings: Settings, make_settings: Any) -> None:
    with lossy_link(settings) as link:
        far = store.connect(make_settings(lanes=settings.lanes, redis_url=link.url))
        audiences = Audiences(far, settings)
        audiences.import_rows("shop", "vip", [b"o0"])
        link.lose(2)  # the first names the audience
        report = audiences.import_rows("shop", "vip", [b"o1", b"o2", b"o3"])
        far.connection_pool.disconnect()
        assert link.lost == 1
    assert report.added + report.known == report.rows == 3
    assert Audiences(client, settings).count("shop", "vip") == 4
    assert members(client, settings) == ["o0", "o1", "o2", "o3"]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)


@both_layouts
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CELLS | st.from_regex(r"o[0-9]{1,2}", fullmatch=True), max_size=30))
def test_whatever_rows_come_each_is_added_known_or_bad(
    audiences: Audiences, client: Any, settings: Settings, cells: list[str]
) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([cell, "x"] for cell in cells)
    report = audiences.import_rows("shop", "vip", out.getvalue().encode().splitlines())
    assert report.added + report.known + report.bad == report.rows <= len(cells)
    assert audiences.count("shop", "vip") == len(members(client, settings))
