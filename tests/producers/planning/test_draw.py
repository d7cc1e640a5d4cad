"""A draw: each user as likely as any other, in bounded memory."""

import random
from collections import Counter

from producers.planning.draw import Draw


def test_few_are_all_there_in_their_order() -> None:
    draw = Draw(5)
    for n in range(5):
        draw.take(f"o{n}")
    assert (draw.of, draw.drawn) == (5, ["o0", "o1", "o2", "o3", "o4"])


def test_each_of_many_is_as_likely_as_any_other() -> None:
    random.seed(3)
    seen: Counter[str] = Counter()
    for _ in range(2000):
        draw = Draw(10)
        for n in range(50):
            draw.take(f"o{n}")
        assert (draw.of, len(set(draw.drawn))) == (50, 10)
        seen.update(draw.drawn)
    assert len(seen) == 50
    assert all(320 < count < 480 for count in seen.values())  # 400 each; four standard errors
