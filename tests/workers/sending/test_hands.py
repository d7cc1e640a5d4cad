"""What a worker has in its hands: counted, bounded, and waking whoever waits."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from workers.sending.claim import Claim
from workers.sending.hands import Hands


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Give a starter of threads that are joined at the end."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a thread was never woken"


def claims(count: int, first: int = 0, lane: int = 0) -> list[Claim]:
    """Claims whose fence tokens count up from ``first``."""
    return [
        Claim("shop", lane, "b1", f"1:o{n}", f"f:{n}", 1, f"{first + n}", 0, False, 0.0)
        for n in range(count)
    ]


def club(count: int, first: int) -> list[Claim]:
    """Claims of another app."""
    return [claim._replace(app="club") for claim in claims(count, first)]


def waits(hands: Hands) -> Callable[[], bool]:
    """Return a check whether somebody sleeps on these hands."""
    return lambda: bool(hands._changed._waiters)  # type: ignore[attr-defined]


def test_room_is_what_is_not_held() -> None:
    hands = Hands(10)
    assert (hands.held, hands.room("shop")) == (0, 10)
    hands.take(claims(7))
    assert (hands.held, hands.room("shop")) == (7, 3)
    hands.drop(claims(2))
    assert (hands.held, hands.room("shop")) == (5, 5)


def test_more_than_fits_leaves_no_room_but_stays_counted() -> None:
    hands = Hands(10)
    hands.take(claims(12))
    assert (hands.held, hands.room("shop")) == (12, 0)
    hands.drop(claims(12))
    assert (hands.held, hands.room("shop")) == (0, 10)


def test_many_threads_lose_no_count() -> None:
    hands = Hands(10)

    def take_and_drop() -> None:
        mine = claims(3, first=threading.get_ident() * 10)
        for _ in range(500):
            hands.take(mine)
            hands.drop(mine[:1])
            hands.drop(mine[1:])

    threads = [threading.Thread(target=take_and_drop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hands.held == 0


def test_whoever_waits_for_room_is_woken_by_it(
    in_thread: Callable[..., threading.Thread], eventually: Callable[..., object]
) -> None:
    hands = Hands(2)
    hands.take(claims(2))
    assert hands.room("shop") == 0
    waiting = in_thread(lambda: hands.wait(60))
    eventually(waits(hands), "the thread waits")
    hands.drop(claims(1))
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_drop_that_makes_no_difference_wakes_nobody() -> None:
    hands = Hands(10)
    hands.take(claims(5))
    hands.drop(claims(1))
    assert not hands._woken


def test_an_app_leaves_room_for_the_others_and_has_what_they_leave() -> None:
    hands = Hands(90, apps=3)
    assert hands.room("shop") == 60
    hands.take(claims(60))
    assert hands.room("shop") == 0
    assert hands.room("club") == 20
    hands.take(club(20, first=100))
    assert hands.room("news") == 6
    hands.drop(claims(60))
    assert hands.room("club") == 40
    assert hands.room("shop") == 46


def test_an_app_that_waits_for_room_is_woken_by_what_another_lets_go(
    in_thread: Callable[..., threading.Thread], eventually: Callable[..., object]
) -> None:
    hands = Hands(90, apps=2)
    hands.take(claims(60))
    hands.take(club(20, first=100))
    assert hands.room("club") == 0
    waiting = in_thread(lambda: hands.wait(60))
    eventually(waits(hands), "the thread waits")
    hands.drop(claims(30))
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_wake_before_the_wait_is_not_lost() -> None:
    hands = Hands(1)
    hands.wake()
    started = time.monotonic()
    hands.wait(60)
    assert time.monotonic() - started < 30


def test_a_wake_counts_once() -> None:
    hands = Hands(1)
    hands.wake()
    hands.wake()
    hands.wait(60)
    started = time.monotonic()
    hands.wait(0.05)
    assert time.monotonic() - started >= 0.05, "what is over wakes nobody"


def test_closing_wakes_and_says_so(
    in_thread: Callable[..., threading.Thread], eventually: Callable[..., object]
) -> None:
    hands = Hands(1)
    waiting = in_thread(lambda: hands.wait(60))
    eventually(waits(hands), "the thread waits")
    assert not hands.closing
    hands.close()
    waiting.join(5)
    assert not waiting.is_alive()
    assert hands.closing


def test_waiting_until_empty_says_whether_that_came_true(
    in_thread: Callable[..., threading.Thread], eventually: Callable[..., object]
) -> None:
    hands = Hands(10)
    assert hands.wait_empty(0)
    hands.take(claims(3))
    assert not hands.wait_empty(0)
    answers: list[bool] = []
    in_thread(lambda: answers.append(hands.wait_empty(60)))
    eventually(waits(hands), "the thread waits")
    hands.drop(claims(2))
    assert answers == []
    hands.drop(claims(3))
    assert eventually(lambda: answers, "the wait ended") == [True]


def test_what_is_in_hand_is_known_by_lane_and_fence() -> None:
    hands = Hands(10)
    hands.take(claims(3))
    hands.take(claims(2, first=7, lane=1))
    hands.drop(claims(1))
    assert sorted(hands.fences([0])) == ["1", "2"]
    assert sorted(hands.fences([1])) == ["7", "8"]


def test_dropping_what_is_not_in_hand_changes_nothing() -> None:
    hands = Hands(10)
    hands.take(claims(3))
    hands.drop(claims(2, first=50))
    assert hands.held == 3


def test_hands_are_wider_while_redis_is_far_within_a_bound() -> None:
    hands = Hands(100, beyond=50)
    hands.take(claims(100))
    assert hands.room("shop") == 0
    hands.widen(30)
    assert hands.room("shop") == 30
    hands.widen(1000)
    assert hands.room("shop") == 50
    hands.take(claims(50, first=100))
    hands.widen(0)
    hands.drop(claims(50))
    assert (hands.held, hands.room("shop")) == (100, 0)


def test_hands_without_a_bound_of_their_own_never_widen() -> None:
    hands = Hands(100)
    hands.widen(1000)
    assert hands.room("shop") == 100


def test_what_is_being_asked_for_has_its_room_already() -> None:
    hands = Hands(100, apps=2)
    hands.take(claims(10))
    assert hands.room("shop", {"shop": 30}) == hands.room("shop") - 30
    assert hands.room("shop", {"club": 40}) < hands.room("shop")
