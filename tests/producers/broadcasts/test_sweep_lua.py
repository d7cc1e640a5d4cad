"""sweep.lua: what waited when a broadcast was dropped, a page at a time."""

from lane_driver import Lane, form

from producers.store import keys

USERS = [f"o{number}" for number in range(450)]


def dropped_amid_resumed(lane: Lane, taken: int) -> None:
    """Drop a broadcast of which so many are resumed and wait; nothing is swept yet."""
    for openid in USERS:
        lane.give(openid, form(openid.zfill(40)))  # as long as WeChat's: a small hash is one page
    lane.start("b1", *USERS)
    lane.client.hset(lane.key("lane_broadcast", "b1"), "open", "1")
    lane.take(most=taken)
    assert lane.recover("b1", "w1") == [taken, 0]
    lane.adopt("b1", 2, "cancelled", "cancelled", sweep=False)


def test_pages_add_up_and_until_the_last_one_the_lane_is_not_complete(lane: Lane) -> None:
    dropped_amid_resumed(lane, 300)
    cursor, pages, doubted, dropped = "0", 0, 0, 0
    while True:
        assert lane.counts("b1")["done"] < len(USERS)
        cursor, *found = lane.sweep("b1", cursor)
        pages, doubted, dropped = pages + 1, doubted + found[0], dropped + found[1]
        if cursor == "0":
            break
    assert pages > 2
    assert (doubted, dropped) == (300, 150)
    counts = {"total": 450, "done": 450, "o:in_doubt": 300, "o:cancelled": 150}
    assert lane.counts("b1") == counts
    assert lane.sweep("b1") == ["0", 0, 0]
    assert "sweeping" not in lane.copy("b1")
    lane.check_ledger("b1")


def test_a_sweep_that_died_is_done_anew_from_the_first_page(lane: Lane) -> None:
    dropped_amid_resumed(lane, 300)
    cursor, doubted, _ = lane.sweep("b1")
    assert cursor != "0"
    assert doubted > 0
    lane.adopt("b1", 2, "cancelled", "cancelled")  # the keeper finds it so
    assert lane.counts("b1") == {
        "total": 450,
        "done": 450,
        "o:in_doubt": 300,
        "o:cancelled": 150,
    }
    assert lane.client.exists(lane.key("flight", "b1")) == 0


def test_what_is_in_hands_goes_its_way(lane: Lane) -> None:
    lane.give("anna", form("A"))
    lane.give("bert", form("B"))
    lane.start("b1", "anna", "bert")
    claim = lane.take_one()
    assert lane.adopt("b1", 2, "cancelled", "cancelled") == [1, 1]
    assert lane.flight("b1").keys() == {claim.openid}
    assert lane.counts("b1") == {"total": 2, "done": 1, "o:cancelled": 1}
    assert lane.client.exists(keys.queue(0, "b1")) == 0
