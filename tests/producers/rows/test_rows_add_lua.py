"""rows_add.lua, walked through its steps: one row an openid, counted as it lies."""

import pytest
import redis
from cluster import strictly

from producers.rows.store import ADD, AddArgs, AddKeys
from producers.store.scripts import Value

KEYS = AddKeys.of(0, "shop", "~r1")
A, B = "\x1fa", "\x1fb\x1f1"


def test_each_step_says_who_had_a_row_and_keeps_the_first(client: "redis.Redis") -> None:
    add = strictly(ADD, client)
    steps: list[tuple[str, list[Value], list[int], dict[str, str], int]] = [
        ("t1", [5, 2, "oA", A, "oB", B], [], {"5": f"\x1eoA{A}\x1eoB{B}"}, 2),
        ("t1", [5, 2, "oA", A, "oB", B], [], {"5": f"\x1eoA{A}\x1eoB{B}"}, 2),  # a lost answer
        (
            "t2",
            [5, 2, "oB", A, "o", A, 7, 1, "oA", A],
            [1],
            {"5": f"\x1eoA{A}\x1eoB{B}\x1eo{A}", "7": f"\x1eoA{A}"},
            4,
        ),
        ("t3", [7, 1, "oA", B], [1], {"5": f"\x1eoA{A}\x1eoB{B}\x1eo{A}", "7": f"\x1eoA{A}"}, 4),
    ]
    for token, given, known, rows, size in steps:
        assert add(KEYS, AddArgs(60_000), given, token=token.ljust(32, "-")) == known
        assert client.hgetall(KEYS.rows) == rows
        assert client.get(KEYS.size) == str(size)
        assert [bit for bit in range(8) if client.getbit(KEYS.buckets, bit)] == sorted(
            map(int, rows)
        )
    assert all(0 < client.pttl(key) <= 60_000 for key in KEYS[1:])


@pytest.mark.parametrize(
    "given", [[], [5], [5, 0], [5, 2, "oA", A], [5, 1, "oA", A, 6], ["x", 1, "oA", A]]
)
def test_what_is_no_step_is_refused_before_anything_is_written(
    client: "redis.Redis", given: list[Value]
) -> None:
    with pytest.raises(redis.ResponseError):
        strictly(ADD, client)(KEYS, AddArgs(60_000), given, token="t" * 32)
    assert client.exists(*KEYS) == 0


@pytest.mark.parametrize("size", ["many", "-1", "0.5"])
def test_a_size_that_is_none_is_refused_before_anything_is_written(
    client: "redis.Redis", size: str
) -> None:
    client.set(KEYS.size, size, px=60_000)
    with pytest.raises(redis.ResponseError, match="size"):
        strictly(ADD, client)(KEYS, AddArgs(60_000), [5, 1, "oA", A], token="t" * 32)
    assert client.exists(KEYS.rows, KEYS.buckets) == 0
