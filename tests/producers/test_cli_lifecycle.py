"""``wxbroadcast status, list, pause, resume, cancel``."""

from cli_runs import run
from shop import Shop

from producers import keys
from producers.settings import Settings

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


def test_moves_print_the_new_state(settings: Settings) -> None:
    broadcast = create(settings)
    assert run(settings, "pause", broadcast).out == "paused\n"
    assert run(settings, "resume", broadcast, "--json").json["state"] == "running"
    assert run(settings, "cancel", broadcast).out == "cancelled\n"


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
    shop.client.rpush(keys.pace(0, broadcast), f"{now - 2000} 0 0", f"{now} 2 1")
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
