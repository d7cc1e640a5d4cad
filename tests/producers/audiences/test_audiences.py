"""Audiences: files of openids come in as they are, bad rows by number, and nobody twice."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mishaps import DiedError, MortalClient, lossy_link
from shop import Shop

from producers import store
from producers.audiences import Audiences
from producers.audiences.reports import ImportReport
from producers.audiences.rows import openids
from producers.errors import InvalidInputError, NotFoundError, UnknownAppError
from producers.permits.collect import Collector
from producers.settings import Settings
from producers.store import keys

both_layouts = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def audiences(client: Any, settings: Settings) -> Audiences:
    return Audiences(client, settings)


def members(client: Any, settings: Settings, name: str = "vip") -> list[str]:
    """Return an audience's members, bucket by bucket, so that one in two buckets shows twice."""
    found: list[str] = []
    pipeline = client.pipeline(transaction=False)
    for bucket in range(settings.buckets):
        lane = settings.layout.of_number(bucket)
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


@both_layouts
def test_removing_takes_out_exactly_who_was_in(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    audiences.import_rows("shop", "vip", [b"o%d\n" % n for n in range(5000)])
    report = audiences.remove_rows(
        "shop", "vip", [b"o1\n", b"o1", b"never", b"not an openid", b"o2"]
    )
    assert (report.rows, report.removed, report.unknown, report.bad) == (5, 2, 2, 1)
    assert report.listed == [(4, "no openid: 1-64 letters, digits, _ or -")]
    assert audiences.count("shop", "vip") == 4998 == len(members(client, settings))
    assert json.loads(json.dumps(report.as_dict()))["removed"] == 2
    rest = audiences.remove_rows("shop", "vip", [b"o%d\n" % n for n in range(5000)])
    assert (rest.removed, rest.unknown) == (4998, 2)
    assert audiences.count("shop", "vip") == 0
    assert audiences.names("shop") == ["all", "vip"]
    for lane in settings.layout.lanes:
        assert client.bitcount(keys.audience_buckets(lane, "shop", "vip")) == 0


def test_nobody_is_removed_from_all_or_from_an_unknown_audience(audiences: Audiences) -> None:
    with pytest.raises(InvalidInputError, match="all"):
        audiences.remove_rows("shop", "all", [b"o1"])
    with pytest.raises(NotFoundError, match="vip"):
        audiences.remove_rows("shop", "vip", [b"o1"])
    with pytest.raises(UnknownAppError):
        audiences.remove_rows("shoq", "vip", [b"o1"])


@both_layouts
def test_deleting_leaves_nothing(audiences: Audiences, client: Any, settings: Settings) -> None:
    audiences.import_rows("shop", "new", [b"o1", b"o2"])
    before = set(client.scan_iter())
    audiences.import_rows("shop", "vip", [b"o%d\n" % n for n in range(3000)])
    told: list[int] = []
    assert audiences.delete("shop", "vip", told.append) == 3000
    assert told == sorted(told)
    assert told[-1] == 3000
    assert len(told) >= settings.buckets // 100
    left = set(client.scan_iter()) - before
    assert left == {keys.audience_dropped(n, "shop", "vip") for n in settings.layout.lanes}
    assert all(0 < client.ttl(mark) <= 8 * 86_400 for mark in left)  # for broadcasts that run
    assert before <= set(client.scan_iter())
    assert audiences.names("shop") == ["all", "new"]
    with pytest.raises(NotFoundError):
        audiences.delete("shop", "vip")


def test_all_and_unknown_audiences_are_not_deleted(audiences: Audiences) -> None:
    with pytest.raises(InvalidInputError, match="all"):
        audiences.delete("shop", "all")
    with pytest.raises(NotFoundError):
        audiences.delete("shop", "vip")
    with pytest.raises(UnknownAppError):
        audiences.delete("shoq", "vip")


@both_layouts
def test_a_deletion_that_was_cut_short_hides_the_audience_and_goes_on_when_called_again(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    audiences.import_rows("shop", "vip", [b"o%d\n" % n for n in range(3000)])
    mortal = MortalClient(client.connection_pool, 1 + 1 + 2)
    with pytest.raises(DiedError):
        Audiences(mortal, settings).delete("shop", "vip")
    assert audiences.names("shop") == ["all"]
    with pytest.raises(NotFoundError):
        audiences.count("shop", "vip")
    with pytest.raises(NotFoundError):
        audiences.remove_rows("shop", "vip", [b"o1"])
    with pytest.raises(InvalidInputError, match="being deleted"):
        audiences.import_rows("shop", "vip", [b"o1"])
    audiences.delete("shop", "vip")
    assert members(client, settings) == []
    assert audiences.import_rows("shop", "vip", [b"o1"]).added == 1
    assert audiences.count("shop", "vip") == 1


@both_layouts
def test_whom_an_import_adds_after_a_deletion_is_not_hidden(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    def rows() -> Any:
        yield from (b"o%d\n" % n for n in range(9000))
        audiences.delete("shop", "vip")
        yield from (b"p%d\n" % n for n in range(9000))

    audiences.import_rows("shop", "vip", rows())
    assert audiences.names("shop") == ["all", "vip"]
    assert audiences.count("shop", "vip") == len(members(client, settings)) >= 9000


@both_layouts
def test_a_list_has_sizes_and_a_cursor(audiences: Audiences) -> None:
    for n in range(5):
        audiences.import_rows("shop", f"a{n}", [b"o%d" % m for m in range(n)])
    whole = audiences.page("shop")
    assert whole.audiences == [("all", 0), *((f"a{n}", n) for n in range(5))]
    assert whole.cursor == ""
    found, cursor = [], ""
    while True:
        page = audiences.page("shop", cursor, 2)
        assert len(page.audiences) <= 2
        found += page.audiences
        cursor = page.cursor
        if not cursor:
            break
    assert found == whole.audiences
    for bad in ("a b", "\n", "x" * 65):
        with pytest.raises(InvalidInputError, match="cursor"):
            audiences.page("shop", bad)
    for limit in (0, 1001):
        with pytest.raises(InvalidInputError, match="limit"):
            audiences.page("shop", "", limit)


@both_layouts
def test_a_broadcast_whose_audience_is_deleted_ends_with_who_was_split(
    shop: Shop, client: Any, settings: Settings
) -> None:
    people = [b"o%d" % n for n in range(12_000)]
    shop.audiences.import_rows("shop", "vip", people)
    broadcast = shop.broadcast(audience="vip", rate=1)
    shop.keeper.run_once()  # a window is split
    split = shop.broadcasts.status(broadcast).total
    assert 0 < split < len(people)
    shop.audiences.delete("shop", "vip")
    shop.open(broadcast)
    while shop.broadcasts.status(broadcast).state == "running":
        for claim in shop.take():
            shop.settle(claim)
        shop.keeper.run_once()
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.total, status.expected) == ("finished", split, len(people))
    assert status.outcomes == {"no_permit": split}
    assert shop.wrong() == []


@both_layouts
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 20), max_size=8)), max_size=8))
def test_adding_and_removing_is_a_set(
    audiences: Audiences, client: Any, settings: Settings, steps: list[tuple[bool, list[int]]]
) -> None:
    client.flushall()
    audiences.import_rows("shop", "vip", [])
    mine: set[str] = set()
    for adds, numbers in steps:
        rows = [b"o%d" % n for n in numbers]
        some = {f"o{n}" for n in numbers}
        if adds:
            assert audiences.import_rows("shop", "vip", rows).added == len(some - mine)
            mine |= some
        else:
            assert audiences.remove_rows("shop", "vip", rows).removed == len(some & mine)
            mine -= some
        assert members(client, settings) == sorted(mine)
        assert audiences.count("shop", "vip") == len(mine)
        bits = sum(
            client.bitcount(keys.audience_buckets(lane, "shop", "vip"))
            for lane in settings.layout.lanes
        )
        assert bits == len({keys.bucket_of(openid, settings.buckets) for openid in mine})


@both_layouts
def test_replacing_leaves_exactly_the_new_members(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    audiences.import_rows("shop", "vip", [b"o%d" % n for n in range(3000)])
    rows = [b"o%d" % n for n in range(2000, 5000)]
    report = audiences.replace_rows("shop", "vip", [*rows, b"o2000", b"not an openid"])
    assert counts(report) == (3002, 2000, 1001, 1)
    assert report.removed == 2000
    assert members(client, settings) == sorted(row.decode() for row in rows)
    assert audiences.count("shop", "vip") == 3000
    again = audiences.replace_rows("shop", "vip", rows)
    assert (*counts(again), again.removed) == (3000, 0, 3000, 0, 0)
    few = audiences.replace_rows("shop", "vip", [b"o1"])
    assert (*counts(few), few.removed) == (1, 1, 0, 0, 3000)
    assert members(client, settings) == ["o1"]
    for lane in settings.layout.lanes:  # buckets that are empty are not read
        bits = client.bitcount(keys.audience_buckets(lane, "shop", "vip"))
        assert bits == (lane == keys.place_of("o1", settings)[0])


@both_layouts
def test_replacing_makes_an_audience_and_can_empty_it(audiences: Audiences) -> None:
    assert counts(audiences.replace_rows("shop", "vip", [b"o1", b"o2"])) == (2, 2, 0, 0)
    assert audiences.names("shop") == ["all", "vip"]
    assert audiences.replace_rows("shop", "vip", []).removed == 2
    assert audiences.count("shop", "vip") == 0
    assert audiences.names("shop") == ["all", "vip"]


@both_layouts
@pytest.mark.parametrize("fault", ["cut", "wrong file"])
def test_a_replacement_that_comes_to_nothing_changes_nothing_and_leaves_nothing(
    audiences: Audiences, client: Any, settings: Settings, fault: str
) -> None:
    audiences.import_rows("shop", "vip", [b"o1", b"o2"])
    before = set(client.keys())

    def cut() -> Iterator[bytes]:
        yield from (b"o%d" % n for n in range(50_000))
        raise ConnectionResetError

    if fault == "cut":
        with pytest.raises(ConnectionResetError):
            audiences.replace_rows("shop", "vip", cut())
    else:
        report = audiences.replace_rows("shop", "vip", [b"<html>", b"404 Not Found"])
        assert (report.bad, report.removed) == (2, 0)
    assert members(client, settings) == ["o1", "o2"]
    assert audiences.count("shop", "vip") == 2
    assert set(client.keys()) == before


def test_what_is_built_beside_ends_by_itself(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    """Its builder may die: every key has a TTL from the first row on."""
    seen: set[str] = set()

    def rows() -> Iterator[bytes]:
        for n in range(5000):
            yield b"o%d" % n
        seen.update(client.scan_iter("*~*", count=10_000))
        assert all(client.pttl(key) > 0 for key in seen)

    audiences.replace_rows("shop", "vip", rows())
    assert len(seen) > 100
    assert not list(client.scan_iter("*~*", count=10_000))
    assert client.ttl(keys.audience(0, "shop", "vip", keys.bucket_of("o1", 256))) == -1


@both_layouts
def test_of_two_replacements_at_once_one_stands_whole(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    crowds = [[b"%s%d" % (name, n) for n in range(3000)] for name in (b"oA", b"oB", b"oC")]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda rows: audiences.replace_rows("shop", "vip", rows), crowds))
    assert audiences.count("shop", "vip") == 3000
    found = [one.encode() for one in members(client, settings)]
    assert found in [sorted(crowd) for crowd in crowds]


@both_layouts
def test_a_broadcast_that_is_split_meanwhile_misses_nobody_who_stays(
    audiences: Audiences, client: Any, settings: Settings
) -> None:
    """Each bucket is read whole, the old one or the new one."""
    old = [b"o%d" % n for n in range(2000)]
    audiences.import_rows("shop", "vip", old)
    stay, ended, read = set(old[1000:]), threading.Event(), 0
    by_bucket: dict[int, set[str]] = {}
    for one in stay:
        by_bucket.setdefault(keys.bucket_of(one.decode(), 256), set()).add(one.decode())

    def replace() -> None:
        try:
            for _ in range(5):
                audiences.replace_rows("shop", "vip", old[1000:])
                audiences.replace_rows("shop", "vip", old)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(replace)
        while not ended.is_set():
            for bucket, mine in by_bucket.items():
                lane = settings.layout.of_number(bucket)
                assert mine <= client.smembers(keys.audience(lane, "shop", "vip", bucket))
                read += 1
        done.result()
    assert read > 100


@both_layouts
def test_a_lost_reply_of_a_replacement_loses_nobody(
    client: Any, settings: Settings, make_settings: Any
) -> None:
    rows = [b"o%d" % n for n in range(300)]
    Audiences(client, settings).import_rows("shop", "vip", [b"gone", *rows[:100]])
    for lost in range(2, 14, 2):
        with lossy_link(settings) as link:
            far = store.connect(make_settings(lanes=settings.lanes, redis_url=link.url))
            audiences = Audiences(far, settings)
            audiences.count("shop", "vip")
            link.lose(lost)
            audiences.replace_rows("shop", "vip", rows)
            far.connection_pool.disconnect()
            assert link.lost == 1
        assert members(client, settings) == sorted(row.decode() for row in rows)
        assert Audiences(client, settings).count("shop", "vip") == 300
        Audiences(client, settings).import_rows("shop", "vip", [b"gone"])


def test_all_is_not_replaced(audiences: Audiences) -> None:
    with pytest.raises(InvalidInputError, match="not 'all'"):
        audiences.replace_rows("shop", "all", [b"o1"])


@both_layouts
def test_who_dies_while_replacing_leaves_sums_that_are_right(
    client: Any, settings: Settings
) -> None:
    rows = [b"o%d" % n for n in range(300)]
    died = 0
    for lives in range(1, 40, 3):
        Audiences(client, settings).replace_rows("shop", "vip", rows[:150])
        mortal = MortalClient(client.connection_pool, lives)
        try:
            Audiences(mortal, settings).replace_rows("shop", "vip", rows[100:])
        except DiedError:
            died += 1
        client.delete(keys.audience_turn("shop", "vip"))  # its minute is over
        found = members(client, settings)
        assert Audiences(client, settings).count("shop", "vip") == len(found)
        assert {row.decode() for row in rows[100:150]} <= set(found)
    assert died > 2
    Audiences(client, settings).replace_rows("shop", "vip", rows[100:])
    assert members(client, settings) == sorted(row.decode() for row in rows[100:])


@pytest.mark.parametrize("text", ["oA", b"oA"])
def test_one_text_is_no_list_of_openids(text: Any) -> None:
    with pytest.raises(InvalidInputError, match="not one text"):  # its letters would be openids
        list(openids(text))
