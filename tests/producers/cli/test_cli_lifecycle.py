"""``wxbroadcast status, list, pause, resume, cancel``."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cli_runs import ended, run, started, variables
from shop import Shop

from producers.broadcasts import Broadcasts
from producers.settings import Settings
from producers.store import keys

ALL = ("broadcast", "-a", "shop", "--channel", "template", "--template-id", "T1")


def create(settings: Settings) -> str:
    """Create a broadcast that no worker sends."""
    run(settings, "audience", "import", "-a", "shop", "vips", "-", stdin="oA\noB\n")
    return run(settings, *ALL, "--audience", "vips", "--data", "a").out.strip()


def test_a_status_is_a_table_or_json(settings: Settings) -> None:
    broadcast = create(settings)
    shown = run(settings, "status", broadcast)
    assert shown.code == 0
    rows = [" ".join(row.split()) for row in shown.out.splitlines()]
    assert f"broadcast {broadcast}" in rows
    assert "settled 0 of 2" in rows
    found = run(settings, "status", broadcast, "--json").json
    assert found["id"] == broadcast
    assert (found["state"], found["expected"], found["queued"]) == ("running", 2, 2)


def test_what_ended_has_as_many_recipients_as_were_found(shop: Shop, settings: Settings) -> None:
    broadcast = create(settings)
    home = keys.home(shop.broadcasts.home_lane(broadcast), broadcast)
    shop.client.hset(home, "audience_size", 5)  # three of them left before they were split
    assert "0/5" in run(settings, "list", "-a", "shop").out
    shop.run_dry(broadcast)
    shop.keeper.run_once()
    assert "2/2" in run(settings, "list", "-a", "shop").out
    rows = [" ".join(row.split()) for row in run(settings, "status", broadcast).out.splitlines()]
    assert "settled 2 of 2" in rows
    assert "audience vips (5 when created)" in rows


def test_moves_print_the_new_state(settings: Settings) -> None:
    broadcast = create(settings)
    assert run(settings, "pause", broadcast).out == "paused\n"
    assert run(settings, "resume", broadcast, "--json").json["state"] == "running"
    assert run(settings, "cancel", broadcast).out == "cancelled\n"


def test_a_weight_is_given_shown_and_changed(settings: Settings) -> None:
    run(settings, "audience", "import", "-a", "shop", "vips", "-", stdin="oA\noB\n")
    spec = (*ALL, "--audience", "vips", "--data", "a")
    broadcast = run(settings, *spec, "--weight", 3).out.strip()
    assert run(settings, "weight", broadcast).out == "3\n"
    assert run(settings, "weight", broadcast, 5, "--json").json == {
        "broadcast": broadcast,
        "weight": 5,
    }
    assert "weight 5" in " ".join(run(settings, "status", broadcast).out.split())
    refused = run(settings, "weight", broadcast, 101, "--json")
    assert (refused.code, refused.json["faults"]) == (2, ["weight 101: a whole number, 1 to 100"])
    refused = run(settings, *spec, "--weight", 3, "--priority", "--json")
    assert (refused.code, "goes before all others" in refused.json["error"]) == (2, True)


def test_a_scheduled_one_says_when_and_is_moved(settings: Settings) -> None:
    run(settings, "audience", "import", "-a", "shop", "vips", "-", stdin="oA\noB\n")
    day = (datetime.now(UTC) + timedelta(days=2)).date()
    spec = (*ALL, "--audience", "vips", "--data", "a")
    broadcast = run(
        settings, *spec, "--at", f"{day} 21:00", "--zone", "Asia/Tokyo", "--expires-in", "2h"
    ).out.strip()
    shown = " ".join(run(settings, "status", broadcast).out.split())
    assert f"waits waiting for its time, {day} 21:00 Asia/Tokyo" in shown
    assert run(settings, "reschedule", broadcast, "--at", f"{day} 22:00").out == "scheduled\n"
    found = run(settings, "status", broadcast, "--json").json
    assert found["waiting"].endswith(f"{day} 22:00 Asia/Tokyo")
    assert found["expires_at_ms"] - found["starts_at_ms"] == 7_200_000
    refused = run(settings, *spec, "--at", "2020-12-01 21:00", "--json")
    assert (refused.code, "is past" in refused.json["error"]) == (2, True)
    refused = run(settings, *spec, "--at", f"{day} 21:00", "--zone", "Mars", "--json")
    assert "unknown time zone 'Mars'; take for instance" in refused.json["error"]
    assert run(settings, "cancel", broadcast).out == "cancelled\n"
    refused = run(settings, "reschedule", broadcast, "--at", f"{day} 22:00", "--json")
    assert refused.json["error"] == f"cannot reschedule broadcast {broadcast}: it is cancelled"


def test_a_series_is_made_seen_moved_and_deleted(settings: Settings) -> None:
    run(settings, "audience", "import", "-a", "shop", "vips", "-", stdin="oA\noB\n")
    spec = (*ALL, "--audience", "vips", "--data", "a", "--every", "0 21 * * *")
    assert run(settings, *spec, "--json").json["error"] == "every: name the series with --key"
    assert run(settings, *spec, "--key", "evening").out == "evening\n"
    again = run(settings, *spec, "--key", "evening", "--json").json
    assert (again["every"], again["state"], again["audience"]) == ("0 21 * * *", "active", "vips")
    listed = run(settings, "series", "list", "-a", "shop")
    assert "21:00" in listed.out
    found = run(settings, "series", "list", "-a", "shop", "--json").json["series"]
    assert found == [again]
    paused = run(settings, "series", "pause", "evening", "-a", "shop")
    assert "asked for" in paused.out
    for verb, state in (("show", "paused"), ("resume", "active"), ("delete", "active")):
        done = run(settings, "series", verb, "evening", "-a", "shop", "--json")
        assert (done.code, done.json["state"]) == (0, state)
    gone = run(settings, "series", "show", "evening", "-a", "shop", "--json")
    assert (gone.code, "no series 'evening'" in gone.json["error"]) == (2, True)


def test_an_illegal_move_says_the_state(settings: Settings) -> None:
    broadcast = create(settings)
    run(settings, "cancel", broadcast)
    ran = run(settings, "resume", broadcast, "--json")
    assert ran.code == 2
    assert ran.json["error"] == f"cannot resume broadcast {broadcast}: it is cancelled"


def test_an_unknown_broadcast_is_wrong_input(settings: Settings) -> None:
    for command in ("status", "pause", "resume", "cancel"):
        ran = run(settings, command, "nothing")
        assert ran.code == 2
        assert "no broadcast nothing" in ran.err


def test_the_newest_broadcasts_are_listed(settings: Settings) -> None:
    first, second = create(settings), create(settings)
    listed = run(settings, "list", "-a", "shop", "--json").json["broadcasts"]
    assert {one["id"] for one in listed} == {first, second}
    assert len(run(settings, "list", "-a", "shop", "--limit", 1, "--json").json["broadcasts"]) == 1
    table = run(settings, "list", "-a", "shop").out
    assert first in table
    assert second in table


def test_a_long_list_goes_on_where_a_page_ended(settings: Settings) -> None:
    made = {create(settings) for _ in range(3)}
    first = run(settings, "list", "-a", "shop", "--limit", 2, "--json").json
    assert f"--cursor {first['cursor']}" in run(settings, "list", "-a", "shop", "--limit", 2).err
    rest = run(settings, "list", "-a", "shop", "--cursor", first["cursor"], "--json").json
    assert {one["id"] for one in first["broadcasts"] + rest["broadcasts"]} == made
    assert rest["cursor"] == ""
    assert run(settings, "list", "-a", "shop", "--cursor", "x").code == 2


def test_a_broadcast_that_goes_shows_its_pace(shop: Shop, settings: Settings) -> None:
    broadcast = create(settings)
    now = shop.now_ms()
    shop.client.rpush(keys.pace(0, broadcast), f"{now - 2000} 0 0")
    shop.client.expire(keys.pace(0, broadcast), 60)
    shop.client.hset(keys.lane_broadcast(0, broadcast), mapping={"done": 1, "o:delivered": 1})
    rows = [" ".join(row.split()) for row in run(settings, "status", broadcast).out.splitlines()]
    assert "pace 0.5 sends/s, 2 s left" in rows


def test_single_messages_are_listed_by_their_template_and_day(
    shop: Shop, settings: Settings
) -> None:
    carrier = shop.post("oAnn")
    (row,) = (
        line for line in run(settings, "list", "-a", "shop").out.splitlines() if carrier in line
    )
    assert "single messages" in row
    rows = [" ".join(row.split()) for row in run(settings, "status", carrier).out.splitlines()]
    assert "audience single messages" in rows
    assert "settled 0 of 1" in rows


# -- why it does not move ---------------------------------------------------------------------


def beat(client: Any, worker: str, apps: str | None) -> None:
    """Let a worker beat now, as `workers.duties.peers` does."""
    client.zadd(keys.WORKERS, {worker: client.time()[0] * 1000})
    if apps is not None:
        client.set(keys.worker_apps(worker), apps, px=60_000)


def test_a_status_says_that_no_worker_is_alive_or_knows_the_app(
    settings: Settings, client: Any
) -> None:
    broadcast = create(settings)

    def hindered() -> str:
        said: str = run(settings, "status", broadcast, "--json").json["hindered"]
        shown = " ".join(run(settings, "status", broadcast).out.split())
        assert (f"waits {said}" in shown) == bool(said)
        return said

    assert hindered().startswith("no worker alive: start `wxbroadcast up`")
    client.zadd(keys.WORKERS, {"w1": client.time()[0] * 1000 - 6000})
    assert hindered().startswith("no worker alive")  # its last beat is too old
    beat(client, "w1", "cafe news")
    assert hindered() == "no worker knows app shop (they know cafe, news): see their WXB_APPS"
    beat(client, "w2", "cafe shop")
    assert hindered() == ""
    client.delete(keys.worker_apps("w2"))
    assert hindered() == ""  # it has not said yet
    client.delete(keys.WORKERS)
    run(settings, "cancel", broadcast)
    assert hindered() == ""  # nothing is to be done any more


def test_a_paused_broadcast_says_why(settings: Settings, client: Any) -> None:
    broadcast = create(settings)
    Broadcasts(client, settings).pause(broadcast, "over the error budget", 45009)
    shown = " ".join(run(settings, "status", broadcast).out.split())
    assert "state paused: over the error budget, errcode 45009" in shown
    assert "paused: over the error budget" in run(settings, "list", "-a", "shop").out


def test_a_message_says_what_it_waits_for(settings: Settings, client: Any) -> None:
    of = ("-a", "shop", "--channel", "template", "--template-id", "T1", "--openid", "oA")
    message = run(settings, "message", "post", *of, "--data", "a").out.strip()
    carrier = message.partition(".")[0]

    def hindered() -> str:
        said: str = run(settings, "message", "show", message, "--json").json["hindered"]
        return said

    assert hindered().startswith("no worker alive")
    beat(client, "w1", "shop")
    assert hindered() == ""
    Broadcasts(client, settings).pause(carrier, "10 template errors", 40037)
    assert hindered() == (
        f"its carrier is paused: 10 template errors, errcode 40037; `wxbroadcast resume {carrier}`"
    )
    assert f"wxbroadcast resume {carrier}" in run(settings, "message", "show", message).out


def test_who_waits_is_told_that_nobody_works(settings: Settings, client: Any) -> None:
    run(settings, "audience", "import", "-a", "shop", "vips", "-", stdin="oA\noB\n")
    waiting = (*ALL, "--audience", "vips", "--data", "a", "--wait")
    with started(*waiting, env=variables(settings)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        broadcast = process.stdout.readline().strip()
        said = iter(process.stderr.readline, "")
        assert any("no worker alive" in line for line in said)
        beat(client, "w1", "cafe")
        for _ in range(20):
            beat(client, "w1", "cafe")
            if "no worker knows app shop" in process.stderr.readline():
                break
        else:
            pytest.fail("it never said that no worker knows the app")
        Broadcasts(client, settings).cancel(broadcast)
        assert ended(process).code == 3


def test_a_retry_prints_its_id_and_the_status_shows_the_family(settings: Settings) -> None:
    broadcast = create(settings)
    wrong = run(settings, "retry", broadcast, "--outcome", "cancelled")
    assert (wrong.code, "it is running" in wrong.err) == (2, True)
    run(settings, "cancel", broadcast)
    ask = ("retry", broadcast, "--outcome", "failed,cancelled", "--key", "k", "--data", "b")
    made = run(settings, *ask)
    assert (made.code, made.err) == (0, "2 recipients\n")
    again = run(settings, *ask, "--json").json
    assert again == {"id": made.out.strip(), "known": True, "recipients": 2}
    shown = " ".join(run(settings, "status", made.out.strip()).out.split())
    assert f"audience cancelled,failed of {broadcast} (2 when created)" in shown
    assert f"family {broadcast}, {made.out.strip()}" in shown
    for option, says in (
        (("--outcome", "in_doubt"), "--even-in-doubt"),
        (("--outcome", "failed", "--errcode", "x"), "errcode 'x'"),
    ):
        ran = run(settings, "retry", broadcast, *option)
        assert (ran.code, says in ran.err) == (2, True)
