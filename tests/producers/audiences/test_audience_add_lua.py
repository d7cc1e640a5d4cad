"""audience_add.lua: members are added once, and the bitmap says which buckets to read."""

from lane_driver import BUCKETS, Lane


def members(lane: Lane, name: str) -> set[str]:
    keys = [lane.key("audience", "shop", name, bucket) for bucket in range(BUCKETS)]
    return set().union(*(lane.client.smembers(key) for key in keys))


def size(lane: Lane, name: str) -> str | None:
    return lane.client.get(lane.key("audience_size", "shop", name))


def test_each_step_answers_how_many_are_new(lane: Lane) -> None:
    steps = [
        (["anna", "bert"], 2, {"anna", "bert"}),
        (["anna", "bert"], 0, {"anna", "bert"}),
        (["bert", "carl", "carl"], 1, {"anna", "bert", "carl"}),
    ]
    for openids, added, all_of_them in steps:
        assert lane.audience("vip", *openids) == added
        assert members(lane, "vip") == all_of_them
        assert size(lane, "vip") == str(len(all_of_them))


def test_the_bitmap_has_the_bits_of_the_buckets_with_members(lane: Lane) -> None:
    openids = ["anna", "bert", "carl", "dora"]
    lane.audience("vip", *openids)
    bitmap = lane.key("audience_buckets", "shop", "vip")
    set_bits = {bucket for bucket in range(BUCKETS) if lane.client.getbit(bitmap, bucket)}
    assert set_bits == {lane.bucket(openid) for openid in openids}


def test_audiences_do_not_mix(lane: Lane) -> None:
    lane.audience("vip", "anna")
    lane.audience("new", "bert")
    assert (members(lane, "vip"), members(lane, "new")) == ({"anna"}, {"bert"})
    assert (size(lane, "vip"), size(lane, "new")) == ("1", "1")
