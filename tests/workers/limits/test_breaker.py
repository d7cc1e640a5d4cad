"""The breaker of one app and worker: what opens it, what is let through, what closes it."""

import math
from itertools import pairwise

from workers.limits.breaker import SILENT, Breaker, Trouble
from workers.limits.gate import BATCH, Gate

NOW = 1000.0


def silent() -> Breaker:
    breaker = Breaker()
    begun = [breaker.unanswered(NOW) for _ in range(SILENT)]
    assert begun == [False] * (SILENT - 1) + [True]
    return breaker


def test_one_without_a_connection_closes_the_gate_until_a_connection_comes_up() -> None:
    breaker = Breaker()
    assert breaker.unsent(NOW)
    assert (breaker.trouble, breaker.since) == (Trouble.NO_CONNECTION, NOW)
    assert breaker.next_at == math.inf
    assert not breaker.unsent(NOW + 1), "connections are tried already"
    assert not breaker.lets_pass()
    breaker.connected(NOW + 5)
    assert breaker.next_at == NOW + 5
    assert not breaker.lets_pass(), "only what was taken to probe"
    breaker.probe(NOW + 5)
    assert breaker.lets_pass()
    assert not breaker.lets_pass(), "one for each probe"
    assert breaker.answered()
    assert breaker.lets_pass()
    assert breaker.next_at == 0.0


def test_an_answer_in_between_starts_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(SILENT - 1):
        breaker.unanswered(NOW)
    assert not breaker.answered()
    for _ in range(SILENT - 1):
        assert not breaker.unanswered(NOW)
    assert breaker.trouble is None


def test_probes_with_a_message_are_a_second_apart_then_two() -> None:
    breaker, times = silent(), [NOW]
    for _ in range(5):
        times.append(breaker.next_at)
        breaker.probe(times[-1])
        assert breaker.lets_pass()
        breaker.unanswered(times[-1])
    pauses = [after - before for before, after in pairwise(times)]
    for pause, longest in zip(pauses, (1, 2, 2, 2, 2), strict=True):
        assert longest * 0.75 <= pause <= longest


def test_a_probe_that_hangs_is_the_only_one_until_its_timeout() -> None:
    breaker = silent()
    breaker.probe(NOW + 1)
    assert breaker.lets_pass()
    assert breaker.next_at == math.inf
    breaker.unanswered(NOW + 9)
    assert NOW + 9 < breaker.next_at <= NOW + 11
    breaker.unanswered(NOW + 9.1)
    assert breaker.next_at <= NOW + 11, "an earlier POST puts nothing off"


def test_a_probe_that_is_not_posted_is_followed_by_another() -> None:
    breaker = silent()
    breaker.probe(NOW + 1)
    assert NOW + 1 < breaker.next_at <= NOW + 3


def test_probes_of_a_connection_are_a_second_apart_then_two_and_ten_at_most() -> None:
    breaker = Breaker()
    breaker.unsent(NOW)
    assert not breaker.probed
    for longest in (1, 2, 4, 8, 10, 10):
        assert longest * 0.75 <= breaker.pause_s() <= longest


def test_after_an_answer_the_pauses_begin_anew() -> None:
    breaker = silent()
    for _ in range(5):
        breaker.probe(breaker.next_at)
    breaker.answered()
    assert not breaker.probed
    for _ in range(SILENT):
        breaker.unanswered(NOW)
    assert breaker.next_at <= NOW + 1


def test_a_probe_that_found_no_connection_has_connections_tried() -> None:
    breaker = silent()
    breaker.probe(NOW + 1)
    assert breaker.unsent(NOW + 2)
    assert (breaker.trouble, breaker.since) == (Trouble.NO_CONNECTION, NOW)
    assert not breaker.lets_pass()


def test_a_gate_in_trouble_takes_one_at_a_time_and_none_before_it_is_time() -> None:
    gate = Gate(0, breaker=silent())
    assert gate.most(NOW, 1) == 0
    at = gate.next_at
    assert NOW < at <= NOW + 1
    assert gate.most(at, 1) == 1
    gate.breaker.answered()
    assert gate.most(NOW, 1) == BATCH
