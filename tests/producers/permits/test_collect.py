"""Collecting: every upload is answered for, no permit is stored twice, whatever goes wrong."""

import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clerks import shelve
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from log_lines import recorded
from mishaps import lossy_link

from producers import store
from producers.audiences import Audiences
from producers.errors import StoreUnavailableError, UnknownAppError
from producers.permits import ledger
from producers.permits.collect import Collector
from producers.permits.report import Report
from producers.permits.uploads import parse_line
from producers.settings import Settings
from producers.store import keys
from producers.templates import Template
from producers.words import PermitKind

USER = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
TEMPLATE = "zun-LzcQyW-edafCVvzPkK4de2Rllr1fFpw2A_x0oXE"
HOUR = 3_600_000
WEEK = 7 * 24 * HOUR

both_layouts = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def collector(client: Any, settings: Settings) -> Collector:
    return Collector(client, settings)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def line(openid: str = USER, **parts: Any) -> bytes:
    return json.dumps({"openid": openid, **parts}).encode()


def uses(client: Any, settings: Settings, openid: str = USER) -> dict[str, int]:
    """Return a user's stored uses: member → expiry (negative: held, spent or void)."""
    lane = keys.place_of(openid, settings)[0]
    stored = client.zrange(keys.permits(lane, "shop", openid), 0, -1, withscores=True)
    return {member: int(score) for member, score in stored}


def accepts(client: Any, settings: Settings, template: str = TEMPLATE, openid: str = USER) -> int:
    lane = keys.place_of(openid, settings)[0]
    return int(client.hget(keys.subscriptions(lane, "shop", openid), template) or 0)


def counts(report: Report) -> tuple[int, int, dict[str, int]]:
    return report.new, report.known, dict(report.refused)


# -- what a mini-program uploads --------------------------------------------------------------


@both_layouts
@pytest.mark.parametrize("parsed", [False, True])
def test_what_a_mini_program_uploads_is_stored(
    collector: Collector, client: Any, settings: Settings, parsed: bool
) -> None:
    soon = now_ms() + HOUR
    uploads = [
        {"openid": USER, "formIds": [{"formId": "f1", "expire": soon}, {"formId": "f2"}]},
        json.dumps({"openid": USER, "formIds": [{"formId": "f3", "expire": soon}]}),
        {"openid": USER, "prepayId": "wx20141027200939"},
        {"openid": USER, "subscriptions": {TEMPLATE: "accept", "other": "accept"}},
    ]
    if parsed:
        report = collector.collect("shop", uploads)
    else:
        report = collector.collect_lines("shop", [json.dumps(it).encode() for it in uploads])
    assert counts(report) == (6, 0, {})
    assert report.lines == 4
    assert report.evicted == 0
    stored = uses(client, settings)
    assert set(stored) == {"f:f1", "f:f2", "f:f3", *(f"p:wx20141027200939:{n}" for n in (1, 2, 3))}
    assert stored["f:f1"] == stored["f:f3"] == soon
    assert accepts(client, settings) == accepts(client, settings, "other") == 1


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ("accept", (1, 0, {})),
        ("acceptWithAudio", (1, 0, {})),
        ("acceptWithAlert", (1, 0, {})),
        ("acceptWithForcePush", (1, 0, {})),
        ("reject", (0, 0, {"user_reject": 1})),
        ("ban", (0, 0, {"user_ban": 1})),
        ("filter", (0, 0, {"user_filter": 1})),
        ("perhaps", (0, 0, {"unknown_result": 1})),
    ],
)
def test_every_result_of_a_subscription_is_answered(
    collector: Collector, client: Any, settings: Settings, result: str, outcome: Any
) -> None:
    report = collector.collect("shop", [{"openid": USER, "subscriptions": {TEMPLATE: result}}])
    assert counts(report) == outcome
    assert accepts(client, settings) == outcome[0]


@both_layouts
def test_one_bad_line_does_not_lose_the_others(collector: Collector) -> None:
    lines = [
        line("o1", formIds=["f1", "the formId is a mock one", "requestFormId:fail timeout"]),
        b"{not json",
        b"",
        b"  \n",
        b"[1, 2]",
        line("", formId="f2"),
        line("o2"),
        b"\xff\xfe",
        line("o3", prepayId="4200000001202002140123456789") + b"\n",
        line("o4", formId="f4") + b"\r\n",
        line("o5", formIds=[{"formId": "f5", "expire": 1}]),
    ]
    report = collector.collect_lines("shop", lines)
    assert (report.lines, report.new, report.known) == (9, 2, 0)
    assert report.refused == {
        "mock_form_id": 1,
        "failed_form_id": 1,
        "not_json": 2,
        "bad_shape": 2,
        "bad_openid": 1,
        "transaction_id": 1,
        "expired": 1,
    }
    assert sorted((number, reason) for number, reason, _ in report.listed) == [
        (1, "failed_form_id"),
        (1, "mock_form_id"),
        (2, "not_json"),
        (5, "bad_shape"),
        (6, "bad_openid"),
        (7, "bad_shape"),
        (8, "not_json"),
        (9, "transaction_id"),
        (11, "expired"),
    ]
    assert all(detail for _, _, detail in report.listed)


def test_all_refusals_are_counted_and_the_first_hundred_listed(collector: Collector) -> None:
    report = collector.collect_lines("shop", [b"nonsense"] * 250)
    assert report.refused == {"not_json": 250}
    assert [number for number, _, _ in report.listed] == list(range(1, 101))


def test_the_report_is_json_ready(collector: Collector) -> None:
    report = collector.collect_lines("shop", [line(formId="f1"), line(formId="f1"), b"?"])
    told = json.loads(json.dumps(report.as_dict()))
    detail = told["listed"][0].pop("detail")
    assert isinstance(detail, str)
    assert told == {
        "lines": 3,
        "new": 1,
        "known": 1,
        "refused": {"not_json": 1},
        "evicted": 0,
        "listed": [{"line": 3, "reason": "not_json"}],
    }


def test_no_refusal_repeats_a_whole_permit(collector: Collector) -> None:
    permit = "0123456789abcdef0123456789abcdef"
    report = collector.collect_lines(
        "shop",
        [
            line(formIds=[{"formId": permit, "expire": 1}]),
            line(formIds=[{"formId": permit, "expire": "soon"}]),
            line(formIds=[permit + " x"]),
            b"{" + permit.encode(),
        ],
    )
    assert report.refused.total() == 4
    assert permit not in json.dumps(report.as_dict())


def test_an_unknown_app_stores_nothing(collector: Collector, client: Any) -> None:
    before = set(client.scan_iter())
    with pytest.raises(UnknownAppError, match="no app 'shoq'"):
        collector.collect_lines("shoq", [line(formId="f1")])
    assert set(client.scan_iter()) == before


def test_collecting_is_one_line_of_the_log(collector: Collector, tmp_path: Any) -> None:
    with recorded(tmp_path) as read:
        collector.collect_lines("shop", [line(formIds=["f1", "f1", ""])])
        (logged,) = read()
    assert logged["event"] == "permits_collected"
    assert [logged[name] for name in ("app", "new", "known", "refused", "evicted")] == [
        "shop",
        1,
        1,
        1,
        0,
    ]


# -- expiry and duplicates --------------------------------------------------------------------


@both_layouts
def test_expiries_are_judged_by_the_week(
    collector: Collector, client: Any, settings: Settings
) -> None:
    before = now_ms()
    report = collector.collect_lines(
        "shop",
        [
            line(formIds=[{"formId": "past", "expire": before - 1}]),
            line(formIds=[{"formId": "zero", "expire": 0}]),
            line(formIds=[{"formId": "soon", "expire": before + HOUR}]),
            line(formIds=[{"formId": "seconds", "expire": before // 1000 + 3600}]),
            line(formIds=[{"formId": "far", "expire": before + 30 * 24 * HOUR}]),
            line(formIds=[{"formId": "never", "expire": 10**30}, "unsaid"]),
            line(prepayIds=[{"prepayId": "gone", "expire": before - HOUR}]),
        ],
    )
    after = now_ms()
    assert counts(report) == (5, 0, {"expired": 3})
    stored = uses(client, settings)
    assert stored["f:soon"] == before + HOUR
    assert stored["f:seconds"] == (before // 1000 + 3600) * 1000
    for clamped in ("f:far", "f:never", "f:unsaid"):
        assert before + WEEK <= stored[clamped] <= after + WEEK


@both_layouts
def test_the_same_permit_twice_is_one_permit(
    collector: Collector, client: Any, settings: Settings
) -> None:
    uploads = [line(formIds=["f1", "f1"], prepayId="p1"), line(prepayId="p1", formId="f1")]
    assert counts(collector.collect_lines("shop", uploads)) == (2, 3, {})
    assert counts(collector.collect_lines("shop", uploads)) == (0, 5, {})
    assert len(uses(client, settings)) == 4


def test_a_later_expiry_does_not_prolong_a_permit(
    collector: Collector, client: Any, settings: Settings
) -> None:
    soon = now_ms() + HOUR
    collector.collect("shop", [{"openid": USER, "formId": "f1", "expire": soon}])
    report = collector.collect("shop", [{"openid": USER, "formId": "f1", "expire": soon + HOUR}])
    assert counts(report) == (0, 1, {})
    assert uses(client, settings) == {"f:f1": soon}


def test_the_same_form_id_of_two_users_is_two_permits(collector: Collector) -> None:
    report = collector.collect_lines("shop", [line("o1", formId="f1"), line("o2", formId="f1")])
    assert counts(report) == (2, 0, {})


@both_layouts
@pytest.mark.parametrize("source", [{"id": "visit-7"}, {"at": 1_577_808_000_000}])
def test_a_subscription_with_an_id_or_a_time_counts_once(
    collector: Collector, client: Any, settings: Settings, source: dict[str, Any]
) -> None:
    upload = line(subscriptions={TEMPLATE: "accept", "other": "accept"}, **source)
    assert counts(collector.collect_lines("shop", [upload, upload])) == (2, 2, {})
    assert counts(collector.collect_lines("shop", [upload])) == (0, 2, {})
    assert accepts(client, settings) == accepts(client, settings, "other") == 1


def test_subscriptions_without_either_count_each(
    collector: Collector, client: Any, settings: Settings
) -> None:
    upload = line(subscriptions={TEMPLATE: "accept"})
    assert counts(collector.collect_lines("shop", [upload, upload])) == (2, 0, {})
    assert accepts(client, settings) == 2


def test_a_rejection_voids_what_was_accepted_before(
    collector: Collector, client: Any, settings: Settings
) -> None:
    at = now_ms() - HOUR
    accept = line(subscriptions={TEMPLATE: "accept", "other": "accept"}, at=at)
    reject = line(subscriptions={TEMPLATE: "reject"}, at=at + 1)
    assert counts(collector.collect_lines("shop", [accept, reject])) == (2, 0, {"user_reject": 1})
    assert (accepts(client, settings), accepts(client, settings, "other")) == (0, 1)
    late = line(subscriptions={TEMPLATE: "accept"}, at=at - 1)
    assert counts(collector.collect_lines("shop", [late])) == (0, 0, {"void_since": 1})


@pytest.mark.parametrize("together", [True, False])
def test_an_accept_after_a_rejection_counts(
    collector: Collector, client: Any, settings: Settings, together: bool
) -> None:
    """A phone uploads at eleven that its user rejected at ten, and accepted at five past ten."""
    ten = now_ms() - HOUR
    reject = line(subscriptions={TEMPLATE: "reject"}, at=ten)
    accept = line(subscriptions={TEMPLATE: "accept"}, at=ten + 5 * 60_000)
    if together:
        report = collector.collect_lines("shop", [reject, accept])
        assert counts(report) == (1, 0, {"user_reject": 1})
    else:
        collector.collect_lines("shop", [reject])
        assert counts(collector.collect_lines("shop", [accept])) == (1, 0, {})
    assert accepts(client, settings) == 1


def test_lines_without_a_time_are_in_the_order_of_the_file(
    collector: Collector, client: Any, settings: Settings
) -> None:
    reject = line(subscriptions={TEMPLATE: "reject"})
    accept = line(subscriptions={TEMPLATE: "accept"})
    report = collector.collect_lines("shop", [accept, reject, accept])
    assert counts(report) == (2, 0, {"user_reject": 1})
    assert accepts(client, settings) == 1


def test_accepts_of_the_source_that_does_not_count_are_refused(
    client: Any, make_settings: Any
) -> None:
    settings = make_settings(app={"subscription_source": "events"})
    collector = Collector(client, settings)
    report = collector.collect_lines("shop", [line(subscriptions={TEMPLATE: "accept"})])
    assert counts(report) == (0, 0, {"not_counted": 1})
    assert accepts(client, settings) == 0
    report = collector.collect_lines("shop", [line(subscriptions={TEMPLATE: "reject"})])
    assert counts(report) == (0, 0, {"user_reject": 1})


def test_one_accept_of_a_long_term_template_is_many(client: Any, make_settings: Any) -> None:
    settings = make_settings(app={"long_term_templates": (TEMPLATE,)})
    uploads = [line(subscriptions={TEMPLATE: "accept"})] * 2
    assert counts(Collector(client, settings).collect_lines("shop", uploads)) == (1, 1, {})
    assert accepts(client, settings) == -1


def test_a_template_that_wechat_lists_as_long_term_needs_no_setting(
    client: Any, settings: Settings
) -> None:
    uploads = [line(subscriptions={TEMPLATE: "accept"})] * 2
    collect = Collector(client, settings).collect_lines
    assert counts(collect("shop", uploads[:1])) == (1, 0, {})  # nothing is known yet
    assert client.zscore(keys.TEMPLATES_DUE, "subscribe shop")
    shelve(client, Template(TEMPLATE, kind="long_term"))
    assert counts(Collector(client, settings).collect_lines("shop", uploads)) == (1, 1, {})
    assert accepts(client, settings) == -1


def test_a_template_of_the_apps_own_list_is_no_strange_one(client: Any, settings: Settings) -> None:
    full = {f"s:strange{number}": 1 for number in range(600)}  # phones made these up
    client.hset(keys.stock(0, "shop"), mapping=full)
    upload = [line(subscriptions={TEMPLATE: "accept"})]
    refused = counts(Collector(client, settings).collect_lines("shop", upload))
    assert refused == (0, 0, {"unknown_template": 1})
    shelve(client, Template(TEMPLATE))
    assert counts(Collector(client, settings).collect_lines("shop", upload)) == (1, 0, {})


# -- the cap per user -------------------------------------------------------------------------


@both_layouts
@pytest.mark.parametrize("together", [True, False])
def test_a_flood_of_one_user_keeps_the_newest(
    client: Any, make_settings: Any, lanes: int, together: bool
) -> None:
    settings = make_settings(lanes=lanes, app={"permits_per_user": 5})
    store.check_layout(client, settings)
    collector = Collector(client, settings)
    start = now_ms()
    lines = [line(formId=f"f{n}", expire=start + (n + 1) * HOUR) for n in range(40)]
    if together:
        reports = [collector.collect_lines("shop", lines)]
    else:
        reports = [collector.collect_lines("shop", [each]) for each in lines]
    assert sum(report.new for report in reports) == 40
    assert sum(report.evicted for report in reports) == 35
    kept = {member for member, expires in uses(client, settings).items() if expires > 0}
    assert kept == {f"f:f{n}" for n in range(35, 40)}
    sums = ledger.totals(client, settings, "shop").kinds[PermitKind.FORM_ID]
    assert (sums.collected, sums.available, sums.void, sums.held) == (40, 5, 35, 0)


def test_a_flood_of_accepts_is_capped_too(client: Any, make_settings: Any) -> None:
    settings = make_settings(app={"permits_per_user": 5})
    report = Collector(client, settings).collect_lines(
        "shop", [line(subscriptions={TEMPLATE: "accept"})] * 40
    )
    assert report.new + report.known + report.refused.total() == 40
    assert report.new == accepts(client, settings) == 5


def test_the_cap_is_per_user(client: Any, make_settings: Any) -> None:
    settings = make_settings(app={"permits_per_user": 2})
    lines = [line(f"o{n % 50}", formId=f"f{n}") for n in range(100)]
    report = Collector(client, settings).collect_lines("shop", lines)
    assert (report.new, report.evicted) == (100, 0)


# -- the audience `all` -----------------------------------------------------------------------


@both_layouts
def test_all_is_every_openid_that_gave_a_permit(
    collector: Collector, client: Any, settings: Settings
) -> None:
    given = {f"oUser{n}" for n in range(500)}
    lines = [line(openid, formId="f1") for openid in given]
    lines += [
        line("oLate", formId="f", expire=1),
        line("oNever", subscriptions={"T": "reject"}),
        line("oMock", formId="the formId is a mock one"),
    ]
    collector.collect_lines("shop", lines)
    collector.collect_lines("shop", lines)
    assert Audiences(client, settings).count("shop", "all") == 500
    pipeline = client.pipeline(transaction=False)
    for bucket in range(settings.buckets):
        pipeline.smembers(keys.audience(settings.layout.of_number(bucket), "shop", "all", bucket))
    members = set().union(*pipeline.execute())
    assert members == given


# -- many lines -------------------------------------------------------------------------------


@both_layouts
def test_progress_is_told_batch_by_batch(collector: Collector) -> None:
    told: list[tuple[int, int]] = []
    lines = [line(f"o{n}", formId="f") for n in range(3000)]
    report = collector.collect_lines(
        "shop", lines, lambda so_far: told.append((so_far.lines, so_far.new))
    )
    assert len(told) > 8
    assert told == sorted(told)
    assert told[-1] == (3000, 3000) == (report.lines, report.new)


STREAM = """
import resource, sys
from producers import store
from producers.permits.collect import Collector
from producers.settings import Settings

url, count = sys.argv[1], int(sys.argv[2])
app = {"appid": "wx1", "secret": "s"}
settings = Settings(_env_file=None, redis_url=url, apps={"shop": app}, buckets=256)

def lines():
    for n in range(count):
        if n % 50 == 0:
            yield b"nonsense"
        yield b'{"openid":"oU%d","formIds":[{"formId":"f%d"}]}' % (n % 8_000, n)

peaks = []
def look(report):
    peaks.append((report.lines, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))

report = Collector(store.connect(settings), settings).collect_lines("shop", lines(), look)
early = next(peak for read, peak in peaks if read > 10_000)
print("PEAKS", report.new, report.refused.total(), early, peaks[-1][1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.timeout(60)
def test_any_number_of_lines_needs_the_same_memory(client: Any, settings: Settings) -> None:
    url = settings.redis_url.get_secret_value()
    done = subprocess.run(
        [sys.executable, "-c", STREAM, url, "80000"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    told = done.stdout.rpartition("PEAKS")[2].split()
    new, refused, early, late = map(int, told)
    assert (new, refused) == (80_000, 1_600)
    assert late - early < 4_000_000


IDS = st.sampled_from(["a", "b", "c", "the formId is a mock one", "requestFormId:fail", "", " "])
EXPIRES = st.sampled_from([None, 0, -1, "soon", 10**15]) | st.integers(-HOUR, 30 * 24 * HOUR).map(
    lambda from_now: now_ms() + from_now
)
PERMIT = st.fixed_dictionaries({"formId": IDS, "expire": EXPIRES}) | IDS
CHOICES = st.dictionaries(
    st.sampled_from(["T1", "T2", "", "errMsg"]),
    st.sampled_from(["accept", "reject", "ban", "filter", "acceptWithAudio", "?", None]),
)
JUNK = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
UPLOAD = st.fixed_dictionaries(
    {"openid": st.sampled_from(["o1", "o2", "o3", "o4", "bad id", None])},
    optional={
        "formIds": st.lists(PERMIT, max_size=4) | JUNK,
        "prepayId": IDS | JUNK,
        "prepayIds": st.lists(IDS, max_size=2),
        "subscriptions": CHOICES | JUNK,
        "id": st.sampled_from(["i1", "i2", "", 7]),
        "at": st.sampled_from([1, 1_577_808_000_000, "yesterday"]),
        "expire": EXPIRES,
    },
)
LINE = (
    UPLOAD.map(lambda upload: json.dumps(upload).encode())
    | UPLOAD.map(lambda upload: json.dumps(json.dumps(upload)).encode())
    | st.binary(max_size=20)
    | JUNK.map(lambda junk: json.dumps(junk).encode())
)


@both_layouts
@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINE, max_size=30))
def test_whatever_comes_each_item_is_new_known_or_refused(
    collector: Collector, client: Any, settings: Settings, lines: list[bytes]
) -> None:
    report = collector.collect_lines("shop", lines)
    items = 0
    for each in lines:
        good, refused = parse_line(each)
        items += len(good) + len(refused)
    assert report.new + report.known + report.refused.total() == items
    assert report.lines == sum(1 for each in lines if each.strip())
    assert len(report.listed) == min(report.refused.total(), 100)
    for kind in ledger.totals(client, settings, "shop").kinds.values():
        assert kind.held == 0  # nobody claims: all is available, void or expired
        assert min(kind.as_dict().values()) >= 0


# -- what goes wrong --------------------------------------------------------------------------


@both_layouts
def test_a_lost_reply_doubles_nothing_and_is_answered_all_the_same(
    client: Any, settings: Settings, make_settings: Any
) -> None:
    with lossy_link(settings) as link:
        far = store.connect(make_settings(lanes=settings.lanes, redis_url=link.url))
        collector = Collector(far, settings)
        collector.collect_lines("shop", [line(formId="f0")])
        link.lose(1)
        report = collector.collect_lines(
            "shop", [line(formId="f1", prepayId="p1", subscriptions={TEMPLATE: "accept"})]
        )
        far.connection_pool.disconnect()
        assert link.lost == 1
    assert counts(report) == (3, 0, {})
    assert len(uses(client, settings)) == 5
    assert accepts(client, settings) == 1
    sums = ledger.totals(client, settings, "shop").total
    assert (sums.collected, sums.available) == (6, 6)
    assert Audiences(client, settings).count("shop", "all") == 1


@pytest.mark.parametrize("lanes", [4])
def test_after_an_outage_the_same_file_stores_the_rest(
    client: Any, settings: Settings, make_settings: Any
) -> None:
    lines = [line(f"o{n}", formId="f", prepayId="p") for n in range(3000)]
    answered: list[int] = []
    with lossy_link(settings) as link:
        far = store.connect(make_settings(lanes=settings.lanes, redis_url=link.url))

        def cut(report: Report) -> None:
            answered.append(report.new)
            link.cut()

        with pytest.raises(StoreUnavailableError, match=r"the same call again loses nothing"):
            Collector(far, settings).collect_lines("shop", lines, cut)
        far.connection_pool.disconnect()
    assert len(answered) == 1
    report = Collector(client, settings).collect_lines("shop", lines)
    assert counts(report) == (6000 - answered[0], answered[0], {})
    assert ledger.totals(client, settings, "shop").total.collected == 12_000


def test_one_collector_serves_many_threads(client: Any, settings: Settings) -> None:
    collector = Collector(client, settings)
    lines = [line(f"o{n}", formId=f"f{n}") for n in range(600)]

    def shuffled(seed: int) -> Report:
        return collector.collect_lines("shop", random.Random(seed).sample(lines, 600))

    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(shuffled, range(8)))
    assert sum(report.new for report in reports) == 600
    assert sum(report.known for report in reports) == 7 * 600
    assert ledger.totals(client, settings, "shop").total.available == 600
