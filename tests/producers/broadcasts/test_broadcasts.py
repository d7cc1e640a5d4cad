"""Broadcasts: created once whatever happens to the creator, moved legally, seen as they are."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from log_lines import recorded
from mishaps import DiedError, MortalClient, lossy_link

from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts, Created, create, jobs
from producers.broadcasts.spec import Spec
from producers.broadcasts.split import Splitter
from producers.errors import (
    IdempotencyConflictError,
    IllegalMoveError,
    InvalidInputError,
    NotFoundError,
    UnknownAppError,
)
from producers.permits.collect import Collector
from producers.settings import Settings
from producers.store import keys
from producers.words import State

both_layouts = pytest.mark.parametrize("lanes", [1, 4])
VIP = {f"oVip{n}" for n in range(50)}


@pytest.fixture
def broadcasts(client: Any, settings: Settings) -> Broadcasts:
    """Give the broadcasts of an app whose audience `vip` has 50 members."""
    import_audience(client, settings, "vip", VIP)
    return Broadcasts(client, settings)


def import_audience(client: Any, settings: Settings, name: str, openids: Any) -> None:
    Audiences(client, settings).import_rows("shop", name, (openid.encode() for openid in openids))


def spec(audience: str = "vip", **changes: Any) -> Spec:
    fields = {"app": "shop", "channel": "template", "template_id": "T1", "data": "a,b"}
    return Spec.checked(**{**fields, "audience": audience, **changes})


def queued(client: Any, settings: Settings, broadcast: str) -> Counter[str]:
    """Count each recipient in the queues of all lanes; each lies in the lane of its bucket."""
    found: Counter[str] = Counter()
    for lane in settings.layout.lanes:
        for item in client.lrange(keys.queue(lane, broadcast), 0, -1):
            bucket, _, openid = item.partition(":")
            assert int(bucket) == keys.bucket_of(openid, settings.buckets)
            assert int(bucket) % settings.lanes == lane
            found[openid] += 1
    return found


def rings(client: Any, settings: Settings, priority: bool = False) -> list[str]:
    """Return the ids in the rings of all lanes."""
    ring = keys.priority_ring if priority else keys.ring
    return [
        each for lane in settings.layout.lanes for each in client.lrange(ring(lane, "shop"), 0, -1)
    ]


def home(client: Any, settings: Settings, broadcast: str) -> dict[str, str]:
    lane = settings.layout.home_of(broadcast)
    found: dict[str, str] = client.hgetall(keys.home(lane, broadcast))
    return found


def lane_states(client: Any, settings: Settings, broadcast: str) -> set[tuple[str, ...]]:
    return {
        tuple(client.hmget(keys.lane_broadcast(lane, broadcast), ["state", "generation", "drop"]))
        for lane in settings.layout.lanes
    }


def ids(client: Any) -> set[str]:
    """Return every broadcast that stands in Redis."""
    return {key.rpartition(":")[2] for key in client.scan_iter("*}:home:*")}


# -- creating ---------------------------------------------------------------------------------


@both_layouts
def test_a_created_broadcast_runs_and_its_recipients_are_queued_once(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    created = broadcasts.create(spec())
    assert not created.known
    assert ids(client) == {created.id}
    assert home(client, settings, created.id)["state"] == State.RUNNING
    assert lane_states(client, settings, created.id) == {("running", "1", "")}
    assert queued(client, settings, created.id) == Counter(VIP)
    assert set(rings(client, settings)) == {created.id}
    assert broadcasts.spec(created.id) == spec()
    assert broadcasts.latest("shop") == [created.id]
    assert client.zrange(keys.active("shop"), 0, -1) == [created.id]


@both_layouts
def test_its_status_tells_what_it_is_doing(broadcasts: Broadcasts, client: Any) -> None:
    seconds, _ = client.time()
    created = broadcasts.create(spec(page="index"))
    status = broadcasts.status(created.id)
    told = json.loads(json.dumps(status.as_dict()))
    assert told.pop("expires_at_ms") - told["created_at_ms"] == 7 * 86_400_000
    assert abs(told.pop("created_at_ms") - seconds * 1000) < 60_000
    assert told == {
        "id": created.id,
        "app": "shop",
        "channel": "template",
        "template_id": "T1",
        "audience": "vip",
        "state": "running",
        "total": 50,
        "expected": 50,
        "settled": 0,
        "outcomes": {},
        "errcodes": {},
        "queued": 50,
        "delayed": 0,
        "in_flight": 0,
        "aside": 0,
        "reason": "",
        "errcode": 0,
        "ended_at_ms": 0,
        "complete": False,
        "rate": 0.0,
        "eta_s": None,
        "retry_of": "",
        "retry_for": "",
        "family": [],
        "starts_at_ms": 0,
        "waiting": "",
        "opens_at_ms": 0,
        "weight": 1,
        "purpose": "",
        "limit": 0,
        "day_left": 10_000_000,
        "carry_over": False,
        "note": "",
    }


@both_layouts
def test_the_audience_all_is_whoever_gave_a_permit(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    Collector(client, settings).collect(
        "shop", [{"openid": openid, "formId": "f"} for openid in ("o1", "o2", "o3")]
    )
    created = broadcasts.create(spec("all"))
    assert queued(client, settings, created.id) == Counter(["o1", "o2", "o3"])


@both_layouts
def test_a_priority_broadcast_waits_in_the_ring_that_is_served_first(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    created = broadcasts.create(spec(priority=True))
    assert set(rings(client, settings, priority=True)) == {created.id}
    assert rings(client, settings) == []


def test_the_newest_come_first(broadcasts: Broadcasts, client: Any) -> None:
    made = [broadcasts.create(spec(data=f"a{n}")).id for n in range(5)]
    assert len(set(made)) == 5
    latest = broadcasts.latest("shop")
    assert sorted(latest) == sorted(made)
    assert broadcasts.latest("shop", limit=2) == latest[:2]
    created_at = [client.zscore(keys.history("shop"), each) for each in latest]
    assert created_at == sorted(created_at, reverse=True)
    with pytest.raises(UnknownAppError):
        broadcasts.latest("shoq")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"app": "shoq"}, UnknownAppError, "no app 'shoq' in WXB_APPS"),
        ({"audience": "nobody"}, NotFoundError, "no audience 'nobody'"),
    ],
)
def test_what_cannot_be_created_stores_nothing(
    broadcasts: Broadcasts, client: Any, changes: dict[str, Any], error: Any, said: str
) -> None:
    before = set(client.scan_iter())
    with pytest.raises(error, match=said):
        broadcasts.create(spec(**changes), key="k")
    assert set(client.scan_iter()) == before


@pytest.mark.parametrize("key", ["a b", "x" * 129, "键", "a\n", "\x7f", " "])
def test_a_key_that_is_none_is_refused(broadcasts: Broadcasts, client: Any, key: str) -> None:
    before = set(client.scan_iter())
    with pytest.raises(InvalidInputError, match="key: 1-128 visible ASCII"):
        broadcasts.create(spec(), key=key)
    assert set(client.scan_iter()) == before


# -- idempotency ------------------------------------------------------------------------------


@both_layouts
def test_the_same_key_and_content_is_the_same_broadcast(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    first = broadcasts.create(spec(), key="today")
    again = broadcasts.create(spec(data={"keyword2": "b", "keyword1": {"value": "a"}}), key="today")
    assert (first.known, again) == (False, Created(first.id, known=True))
    assert ids(client) == {first.id}
    assert queued(client, settings, first.id) == Counter(VIP)
    assert rings(client, settings).count(first.id) == len(set(rings_with(client, settings)))


def rings_with(client: Any, settings: Settings) -> list[int]:
    """Return the lanes whose ring is not empty."""
    return [lane for lane in settings.layout.lanes if client.exists(keys.ring(lane, "shop"))]


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "a,c"},
        {"template_id": "T2"},
        {"audience": "all"},
        {"page": "index"},
        {"rate": 5},
        {"priority": True},
        {"expires_in": timedelta(hours=1)},
    ],
)
def test_the_same_key_with_other_content_is_refused_and_nothing_changes(
    broadcasts: Broadcasts, client: Any, changes: dict[str, Any]
) -> None:
    first = broadcasts.create(spec(), key="today")
    before = set(client.scan_iter())
    with pytest.raises(IdempotencyConflictError, match=r"'today'.*other content") as caught:
        broadcasts.create(spec(**changes), key="today")
    assert (caught.value.key, caught.value.broadcast_id) == ("today", first.id)
    assert first.id in str(caught.value)
    assert set(client.scan_iter()) == before


def test_a_key_belongs_to_its_app(client: Any, make_settings: Any) -> None:
    apps = {name: {"appid": f"wx{name}", "secret": "s"} for name in ("shop", "news")}
    settings = make_settings(apps=apps)
    broadcasts = Broadcasts(client, settings)
    made = [broadcasts.create(spec("all", app=app), key="today") for app in apps]
    assert made[0].id != made[1].id
    assert not made[1].known


def test_without_a_key_each_call_is_a_new_broadcast(broadcasts: Broadcasts) -> None:
    assert broadcasts.create(spec()).id != broadcasts.create(spec()).id


def test_the_key_is_known_for_seven_days(broadcasts: Broadcasts, client: Any) -> None:
    broadcasts.create(spec(), key="today")
    left = client.pttl(keys.idempotency("shop", "today"))
    assert 0 <= 7 * 24 * 3_600_000 - left < 60_000


@pytest.mark.parametrize("move", ["cancel", "finish"])
def test_the_key_of_an_ended_broadcast_starts_nothing_again(
    broadcasts: Broadcasts, client: Any, settings: Settings, move: str
) -> None:
    import_audience(client, settings, "empty", [])
    audience = "vip" if move == "cancel" else "empty"
    first = broadcasts.create(spec(audience), key="today")
    if move == "cancel":
        broadcasts.cancel(first.id)
    assert broadcasts.finish(first.id)
    before = broadcasts.status(first.id)
    again = broadcasts.create(spec(audience), key="today")
    assert again == Created(first.id, known=True)
    assert broadcasts.status(first.id) == before
    assert queued(client, settings, first.id) == Counter()


@both_layouts
def test_many_creates_at_once_with_one_key_make_one_broadcast(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    for round_ in range(5):
        with ThreadPoolExecutor(8) as pool:
            made = list(
                pool.map(lambda _, n=round_: broadcasts.create(spec(), key=f"k{n}"), range(16))
            )
        assert len({created.id for created in made}) == 1
        assert sum(not created.known for created in made) == 1
        assert queued(client, settings, made[0].id) == Counter(VIP)
        assert len(ids(client)) == round_ + 1


def test_of_creates_at_once_with_other_content_one_wins(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    def create_one(n: int) -> Created | str:
        try:
            return broadcasts.create(spec(data=f"a{n % 4}"), key="k")
        except IdempotencyConflictError as error:
            return error.broadcast_id

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create_one, range(16)))
    winners = {each.id for each in made if isinstance(each, Created)}
    assert winners | {each for each in made if isinstance(each, str)} == winners
    assert ids(client) == winners
    assert len(winners) == 1


# -- what goes wrong while creating -----------------------------------------------------------


at_once_or_in_steps = pytest.mark.parametrize("few", [1000, 0], ids=["at once", "in steps"])
"""An audience of a few is split in the step that creates its broadcast, another one in many."""


@both_layouts
@at_once_or_in_steps
def test_a_creator_that_dies_anywhere_is_continued_by_the_same_key(
    broadcasts: Broadcasts,
    client: Any,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    """Die before the first command, before the second, … until one creator lives to the end."""
    monkeypatch.setattr(create, "_FEW", few)
    steps = 0
    while True:
        mortal = Broadcasts(MortalClient(client.connection_pool, steps), settings)
        key = f"key-{steps}"
        try:
            created = mortal.create(spec(), key=key)
        except DiedError:
            created = broadcasts.create(spec(), key=key)
            died = True
        else:
            died = False
        assert broadcasts.create(spec(), key=key) == Created(created.id, known=True)
        assert broadcasts.status(created.id).state is State.RUNNING
        assert lane_states(client, settings, created.id) == {("running", "1", "")}
        assert queued(client, settings, created.id) == Counter(VIP)
        assert len(ids(client)) == steps + 1
        assert broadcasts.latest("shop", 100).count(created.id) == 1
        assert set(client.zrange(keys.active("shop"), 0, -1)) == ids(client)
        if not died:
            break
        steps += 1
    assert steps > 6 + (2 if few else 5) * settings.lanes


@both_layouts
@at_once_or_in_steps
def test_a_creator_that_died_leaves_nothing_half_sent(
    broadcasts: Broadcasts,
    client: Any,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    """What the keeper finds (adopt, fill) it can complete, without the key being used again."""
    monkeypatch.setattr(create, "_FEW", few)
    steps = 0
    while True:
        before = ids(client)
        try:
            Broadcasts(MortalClient(client.connection_pool, steps), settings).create(spec())
        except DiedError:
            steps += 1
        else:
            break
        for broadcast in ids(client) - before:
            assert client.zscore(keys.active("shop"), broadcast)  # the keeper knows of it
            broadcasts.adopt(broadcast)
            for lane in settings.layout.lanes:
                Splitter(client, settings).fill(broadcast, lane)
            assert queued(client, settings, broadcast) == Counter(VIP)
    assert len(ids(client)) > (0 if few else settings.lanes)


@pytest.mark.parametrize(("lanes", "key"), [(1, ""), (4, "today")])
@at_once_or_in_steps
def test_any_lost_reply_still_makes_one_broadcast(
    broadcasts: Broadcasts,
    client: Any,
    settings: Settings,
    make_settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    few: int,
) -> None:
    monkeypatch.setattr(create, "_FEW", few)
    with lossy_link(settings) as link:
        far = store.connect(make_settings(lanes=settings.lanes, redis_url=link.url))
        distant = Broadcasts(far, settings)
        distant.create(spec(data="warm"))
        nth = 0
        while True:
            nth += 1
            before = ids(client)
            link.lose(nth)
            created = distant.create(spec(), key=f"{key}{nth}" if key else "")
            if link.lost < nth:
                break
            assert ids(client) - before == {created.id}
            for lane in settings.layout.lanes:  # the keeper's next second
                Splitter(client, settings).fill(created.id, lane)
            assert queued(client, settings, created.id) == Counter(VIP)
            assert broadcasts.status(created.id).total == 50
        far.connection_pool.disconnect()
    assert nth > (2 if few else 4 + 2 * settings.lanes)


# -- splitting --------------------------------------------------------------------------------


def test_a_small_audience_is_split_by_its_creator(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    import_audience(client, settings, "small", (f"o{n}" for n in range(10_000)))
    created = broadcasts.create(spec("small"))
    biggest = max(Counter(keys.bucket_of(f"o{n}", 256) for n in range(10_000)).values())
    assert 300 <= broadcasts.status(created.id).queued < 300 + biggest
    assert jobs_waiting(client) == 0


def test_a_large_one_is_left_to_a_worker(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    import_audience(client, settings, "large", (f"o{n}" for n in range(10_001)))
    created = broadcasts.create(spec("large"))
    status = broadcasts.status(created.id)
    assert (status.expected, status.total, status.queued) == (10_001, 0, 0)
    assert jobs_waiting(client) == 1
    assert not broadcasts.finish(created.id)


def jobs_waiting(client: Any) -> int:
    return int(client.llen(f"{keys.DRAMATIQ_NAMESPACE}:{jobs.SPLIT}"))


def test_an_empty_audience_is_finished_at_once(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    created = broadcasts.create(spec("all"))
    status = broadcasts.status(created.id)
    assert (status.expected, status.total, status.complete) == (0, 0, True)
    assert broadcasts.finish(created.id)
    assert broadcasts.finish(created.id)
    status = broadcasts.status(created.id)
    assert status.state is State.FINISHED
    assert status.ended_at_ms >= status.created_at_ms


@both_layouts
def test_recipients_that_were_never_split_are_counted_when_it_is_cancelled(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    import_audience(client, settings, "large", (f"o{n}" for n in range(10_500)))
    created = broadcasts.create(spec("large"))
    Splitter(client, settings).fill(created.id, 0)
    broadcasts.cancel(created.id)
    assert jobs_waiting(client) >= 1  # somebody will count them
    for lane in settings.layout.lanes:
        Splitter(client, settings).fill(created.id, lane)
    status = broadcasts.status(created.id)
    assert (status.total, status.settled, status.outcomes) == (
        10_500,
        10_500,
        {"cancelled": 10_500},
    )
    assert status.complete
    assert list(broadcasts.watch(created.id)) == [status]


# -- moving -----------------------------------------------------------------------------------

MOVES = ("start", "pause", "resume", "cancel", "abort", "expire", "finish")
WAYS: dict[State, tuple[str, ...]] = {
    State.RUNNING: (),
    State.PAUSED: ("pause",),
    State.CANCELLED: ("cancel",),
    State.ABORTED: ("abort",),
    State.FINISHED: ("finish",),
}
LEGAL = {
    (State.RUNNING, "pause"): State.PAUSED,
    (State.RUNNING, "cancel"): State.CANCELLED,
    (State.RUNNING, "abort"): State.ABORTED,
    (State.RUNNING, "expire"): State.RUNNING,
    (State.RUNNING, "finish"): State.FINISHED,
    (State.PAUSED, "resume"): State.RUNNING,
    (State.PAUSED, "cancel"): State.CANCELLED,
    (State.PAUSED, "abort"): State.ABORTED,
    (State.PAUSED, "expire"): State.RUNNING,
    (State.PAUSED, "finish"): State.FINISHED,
}


@both_layouts
@pytest.mark.parametrize("state", WAYS)
@pytest.mark.parametrize("move", MOVES)
def test_a_move_is_made_where_the_state_allows_it_and_refused_elsewhere(
    broadcasts: Broadcasts, client: Any, settings: Settings, state: State, move: str
) -> None:
    created = broadcasts.create(spec("all"))
    for step in WAYS[state]:
        broadcasts.move(created.id, step)
    before = home(client, settings, created.id)
    assert before["state"] == state
    if (state, move) in LEGAL:
        assert broadcasts.move(created.id, move) is LEGAL[state, move]
        after = home(client, settings, created.id)
        assert after["state"] == LEGAL[state, move]
        assert int(after["generation"]) == int(before["generation"]) + 1
        (lanes_are,) = lane_states(client, settings, created.id)
        assert lanes_are[:2] == (after["state"], after["generation"])
    else:
        with pytest.raises(IllegalMoveError, match=f"cannot {move} .*: it is {state}") as caught:
            broadcasts.move(created.id, move)
        error = caught.value
        assert (error.broadcast_id, error.state, error.move) == (created.id, state, move)
        assert home(client, settings, created.id) == before


@both_layouts
def test_a_paused_broadcast_leaves_the_ring_and_a_resumed_one_joins_again(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    created = broadcasts.create(spec())
    ring = rings(client, settings)
    assert broadcasts.pause(created.id) is State.PAUSED
    assert rings(client, settings) == []
    status = broadcasts.status(created.id)
    assert (status.state, status.reason, status.queued) == (State.PAUSED, "asked for", 50)
    assert [Splitter(client, settings).fill(created.id, 0)] == [0]
    assert broadcasts.resume(created.id) is State.RUNNING
    assert rings(client, settings) == ring
    assert queued(client, settings, created.id) == Counter(VIP)
    assert broadcasts.status(created.id).reason == ""


@both_layouts
def test_a_cancelled_broadcast_gives_every_recipient_its_outcome_at_once(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    created = broadcasts.create(spec())
    assert broadcasts.cancel(created.id) is State.CANCELLED
    status = broadcasts.status(created.id)
    assert (status.settled, status.outcomes, status.queued) == (50, {"cancelled": 50}, 0)
    assert status.complete
    assert rings(client, settings) == []
    assert broadcasts.finish(created.id)
    assert broadcasts.status(created.id).state is State.CANCELLED


def test_an_aborted_broadcast_says_why(broadcasts: Broadcasts) -> None:
    created = broadcasts.create(spec())
    broadcasts.move(created.id, "abort", "WeChat refuses it", 40037)
    status = broadcasts.status(created.id)
    assert (status.state, status.reason, status.errcode) == (
        State.ABORTED,
        "WeChat refuses it",
        40037,
    )
    assert status.outcomes == {"cancelled": 50}
    assert status.ended_at_ms >= status.created_at_ms


@both_layouts
@pytest.mark.parametrize("paused", [False, True])
def test_the_rest_of_an_expired_broadcast_is_late(
    broadcasts: Broadcasts, client: Any, settings: Settings, paused: bool
) -> None:
    created = broadcasts.create(spec())
    if paused:
        broadcasts.pause(created.id)
    broadcasts.move(created.id, "expire")
    status = broadcasts.status(created.id)
    assert (status.outcomes, status.complete) == ({"late": 50}, True)
    with pytest.raises(IllegalMoveError):
        broadcasts.move(created.id, "expire")
    assert broadcasts.finish(created.id)
    assert broadcasts.status(created.id).state is State.FINISHED
    assert rings(client, settings) == []


def test_a_broadcast_is_not_finished_while_somebody_has_no_outcome(
    broadcasts: Broadcasts,
) -> None:
    created = broadcasts.create(spec())
    assert not broadcasts.finish(created.id)
    assert broadcasts.status(created.id).state is State.RUNNING


@both_layouts
def test_lanes_that_missed_a_move_are_brought_to_it(
    broadcasts: Broadcasts, client: Any, settings: Settings
) -> None:
    """Die anywhere between the home and the last lane: whoever adopts next completes the move."""
    for move, state, drop in (("pause", "paused", ""), ("cancel", "cancelled", "cancelled")):
        for steps in range(100):
            created = broadcasts.create(spec())
            mortal = Broadcasts(MortalClient(client.connection_pool, steps), settings)
            try:
                mortal.move(created.id, move)
            except DiedError:
                lived = False
            else:
                lived = True
            broadcasts.adopt(created.id)
            if home(client, settings, created.id)["state"] == state:
                assert lane_states(client, settings, created.id) == {(state, "2", drop)}
                assert created.id not in rings(client, settings)
            else:
                assert lane_states(client, settings, created.id) == {("running", "1", "")}
            if lived:
                break
        assert lived
        assert steps > settings.lanes


def test_of_moves_at_once_each_legal_one_is_made_once(broadcasts: Broadcasts) -> None:
    created = broadcasts.create(spec())

    def cancel(_: int) -> bool:
        try:
            broadcasts.cancel(created.id)
        except IllegalMoveError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(cancel, range(16))) == 1
    assert broadcasts.status(created.id).outcomes == {"cancelled": 50}


@both_layouts
def test_a_lost_reply_of_a_move_makes_it_once(
    broadcasts: Broadcasts, client: Any, settings: Settings, make_settings: Any
) -> None:
    with lossy_link(settings) as link:
        far = store.connect(make_settings(lanes=settings.lanes, redis_url=link.url))
        distant = Broadcasts(far, settings)
        distant.pause(broadcasts.create(spec()).id)
        nth = 0
        while True:
            nth += 1
            created = broadcasts.create(spec())
            link.lose(nth)
            assert distant.pause(created.id) is State.PAUSED
            assert lane_states(client, settings, created.id) == {("paused", "2", "")}
            if link.lost < nth:
                break
        far.connection_pool.disconnect()
    assert nth > 2


@pytest.mark.parametrize("call", ["status", "spec", "pause", "resume", "cancel", "finish", "adopt"])
def test_a_broadcast_that_never_was_is_named(
    broadcasts: Broadcasts, client: Any, call: str
) -> None:
    before = set(client.scan_iter())
    with pytest.raises(NotFoundError, match="no broadcast b-404"):
        getattr(broadcasts, call)("b-404")
    assert set(client.scan_iter()) == before


def test_each_step_of_its_life_is_one_line_of_the_log(
    broadcasts: Broadcasts, tmp_path: Path
) -> None:
    with recorded(tmp_path) as read:
        created = broadcasts.create(spec(), key="today")
        broadcasts.create(spec(), key="today")
        broadcasts.pause(created.id)
        with pytest.raises(IllegalMoveError):
            broadcasts.pause(created.id)
        broadcasts.resume(created.id)
        broadcasts.move(created.id, "abort", "bad template", 40037)
        lines = read()
    assert [(line["event"], line.get("move"), line.get("state")) for line in lines] == [
        ("broadcast_created", None, None),
        ("broadcast_moved", "pause", "paused"),
        ("broadcast_moved", "resume", "running"),
        ("broadcast_moved", "abort", "aborted"),
    ]
    assert {line["broadcast"] for line in lines} == {created.id}
    assert [line["generation"] for line in lines[1:]] == [2, 3, 4]
    assert (lines[0]["audience_size"], lines[3]["errcode"]) == (50, 40037)
