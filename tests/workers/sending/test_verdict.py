"""The three-state table of the design, and every errcode through it."""

import re
from importlib.resources import files

import pytest

from producers.words import Outcome
from workers.sending.claim import Claim
from workers.sending.settle import Answer
from workers.sending.verdict import Action, Streak, Verdict, backoff_ms, judge
from workers.wechat.errcodes import RULES, Disposition, PermitFate, Rule, rule
from workers.wechat.reply import Fate, Reply

ATTEMPTS = 5
LAST = ATTEMPTS - 1
DAY_MS = 24 * 3600 * 1000
UNANSWERED = Reply(Fate.UNANSWERED, errmsg="TimeoutError")
UNSENT = Reply(Fate.UNSENT, errmsg="ClientConnectorError")

DELIVERED = Verdict(Action.SETTLE, "spent", "delivered", 0, Streak.OK)
IN_DOUBT = Verdict(Action.SETTLE, "doubt", "in_doubt")
NEXT = Verdict(Action.SWAP, "void", "no_permit", 0, Streak.REFUSAL)
HELD_BACK = Verdict(Action.REQUEUE, "back", penalize=True)
STOPS_ALL = Verdict(Action.DELAY, "back", "-", 2000, Streak.TEMPLATE)
UNCLEAR = Verdict(Action.SETTLE, "void", "failed", 0, Streak.UNKNOWN)


def answered(errcode: int) -> Reply:
    return Reply(Fate.ANSWERED, errcode)


def keep(delay_ms: int, *, stale_token: bool = False) -> Verdict:
    return Verdict(Action.KEEP, "keep", "-", delay_ms, stale_token=stale_token)


def back(delay_ms: int, *, stale_token: bool = False) -> Verdict:
    return Verdict(Action.DELAY, "back", "-", delay_ms, stale_token=stale_token)


def settled(fate: str, outcome: str, streak: Streak = Streak.NONE) -> Verdict:
    return Verdict(Action.SETTLE, fate, outcome, 0, streak)


def verdict_on(
    reply: Reply,
    kind: str,
    *,
    resumed: bool = False,
    tries: int = 0,
    attempts: int = ATTEMPTS,
    age_ms: int = DAY_MS,
    retry_when_busy: bool = True,
    unsure: bool = False,
) -> Verdict:
    return judge(
        reply,
        kind=kind,
        resumed=resumed,
        tries=tries,
        attempts=attempts,
        permit_age_ms=age_ms,
        retry_when_busy=retry_when_busy,
        unsure=unsure,
    )


FIRST = [
    # errcode, kinds, tries, verdict
    (0, "fps", 0, DELIVERED),
    (0, "fps", LAST, DELIVERED),
    (-1, "f", 0, keep(1000)),
    (-1, "f", 3, keep(8000)),
    (-1, "f", LAST, IN_DOUBT),
    (-1, "ps", 0, back(1000)),
    (-1, "ps", 3, back(8000)),
    (-1, "ps", LAST, IN_DOUBT),
    (41028, "fp", 0, NEXT),
    (41028, "fp", LAST, NEXT),
    (41029, "fp", 0, NEXT),
    (41031, "fp", 0, NEXT),
    (41032, "f", 0, Verdict(Action.SWAP, "back", "failed", 2000, Streak.TEMPLATE, skip="f")),
    (41034, "f", 0, Verdict(Action.SWAP, "back", "failed", 2000, Streak.TEMPLATE, skip="f")),
    (41035, "p", 0, Verdict(Action.SWAP, "back", "failed", 2000, Streak.TEMPLATE, skip="p")),
    (41035, "p", LAST, settled("back", "failed", Streak.TEMPLATE)),
    (40001, "fps", 0, back(1000, stale_token=True)),
    (42001, "fps", 3, back(8000, stale_token=True)),
    (43108, "fps", 0, back(1000)),
    (43108, "fps", 2, back(4000)),
    (43108, "fps", LAST, settled("back", "failed")),
    (44990, "fps", 0, HELD_BACK),
    (45009, "fps", 0, HELD_BACK),
    (45011, "fps", LAST, HELD_BACK),
    (43101, "fps", 0, settled("void_all", "refused", Streak.REFUSAL)),
    (43101, "fps", LAST, settled("void_all", "refused", Streak.REFUSAL)),
    (43004, "s", 0, settled("back", "refused", Streak.REFUSAL)),
    (40003, "fps", 0, settled("void_all", "invalid_user", Streak.REFUSAL)),
    (47003, "fps", 0, settled("back", "bad_data", Streak.TEMPLATE)),
    (45168, "s", 0, settled("back", "bad_data", Streak.TEMPLATE)),
    (40038, "s", 0, settled("void", "failed", Streak.UNKNOWN)),
    (9800001, "s", 0, settled("back", "failed", Streak.UNKNOWN)),
    (40037, "fps", 0, STOPS_ALL),
    (40037, "fps", 3, STOPS_ALL),
    (40037, "fps", LAST, settled("back", "failed", Streak.TEMPLATE)),
    (43107, "s", 0, STOPS_ALL),
    (45103, "fp", 0, STOPS_ALL),
    (12345, "fps", 0, UNCLEAR),
    (12345, "fps", LAST, UNCLEAR),
    (40029, "fps", 0, UNCLEAR),
]

RESUMED = [
    # errcode, tries, verdict on a form_id that may have been used
    (0, 1, DELIVERED),
    (0, LAST, DELIVERED),
    (41029, 1, DELIVERED),
    (41029, LAST, DELIVERED),
    (41028, 1, IN_DOUBT),
    (41031, 1, IN_DOUBT),
    (-1, 1, keep(2000)),
    (-1, LAST, IN_DOUBT),
    (40001, 1, keep(2000, stale_token=True)),
    (43108, 1, keep(2000)),
    (43108, LAST, IN_DOUBT),
    (44990, 1, HELD_BACK),
    (45009, LAST, HELD_BACK),
    (41032, 1, IN_DOUBT),
    (43101, 1, IN_DOUBT),
    (40003, 1, IN_DOUBT),
    (47003, 1, IN_DOUBT),
    (40038, 1, IN_DOUBT),
    (40037, 1, Verdict(Action.SETTLE, "doubt", "in_doubt", 0, Streak.TEMPLATE)),
    (12345, 1, IN_DOUBT),
    (40029, 1, IN_DOUBT),
]


@pytest.mark.parametrize(("errcode", "kinds", "tries", "expected"), FIRST)
def test_an_answer_to_a_first_attempt(
    errcode: int, kinds: str, tries: int, expected: Verdict
) -> None:
    for kind in kinds:
        assert verdict_on(answered(errcode), kind, tries=tries) == expected, kind


@pytest.mark.parametrize(("errcode", "tries", "expected"), RESUMED)
def test_an_answer_to_a_resumed_form_id(errcode: int, tries: int, expected: Verdict) -> None:
    assert verdict_on(answered(errcode), "f", resumed=True, tries=tries) == expected


def test_both_tables_have_every_disposition() -> None:
    assert {rule(row[0]).disposition for row in FIRST} == set(Disposition)
    assert {rule(row[0]).disposition for row in RESUMED} == set(Disposition)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_lost_answer_repeats_the_same_form_id_until_the_last_attempt(resumed: bool) -> None:
    delays = [1000, 2000, 4000, 8000]
    for tries, delay_ms in enumerate(delays):
        assert verdict_on(UNANSWERED, "f", resumed=resumed, tries=tries) == keep(delay_ms)
    assert verdict_on(UNANSWERED, "f", resumed=resumed, tries=LAST) == IN_DOUBT


@pytest.mark.parametrize("kind", ["p", "s"])
@pytest.mark.parametrize("tries", [0, 3, LAST])
def test_a_lost_answer_is_final_for_what_has_no_key_of_its_own(kind: str, tries: int) -> None:
    assert verdict_on(UNANSWERED, kind, tries=tries) == IN_DOUBT


@pytest.mark.parametrize("kind", ["f", "p", "s"])
@pytest.mark.parametrize("tries", [0, LAST, 100])
def test_a_send_that_never_left_costs_neither_permit_nor_attempt(kind: str, tries: int) -> None:
    """Nor does it slow the other workers: WeChat said nothing."""
    assert verdict_on(UNSENT, kind, tries=tries) == HELD_BACK._replace(penalize=False)


@pytest.mark.parametrize("kind", ["p", "s"])
def test_system_error_is_final_where_the_setting_says_so(kind: str) -> None:
    assert verdict_on(answered(-1), kind, retry_when_busy=False) == IN_DOUBT
    assert verdict_on(answered(-1), "f", retry_when_busy=False) == keep(1000)


def test_a_young_prepay_id_is_tried_again_within_two_minutes() -> None:
    young = DAY_MS // 1440
    assert verdict_on(answered(41028), "p", age_ms=young) == back(45_000)
    assert verdict_on(answered(41028), "p", age_ms=young, tries=1) == back(45_000)
    assert verdict_on(answered(41028), "p", age_ms=young, tries=2) == NEXT
    assert verdict_on(answered(41028), "p", age_ms=600_000) == NEXT
    assert verdict_on(answered(41028), "f", age_ms=young) == NEXT
    assert verdict_on(answered(41029), "p", age_ms=young) == NEXT


UNSURE = [
    # errcode, kinds, verdict on a first attempt that may be a second one
    (0, "fps", DELIVERED),
    (41029, "f", settled("doubt", "in_doubt", Streak.USED)),
    (41029, "p", settled("doubt", "in_doubt", Streak.FORGOTTEN)),
    (41028, "p", settled("doubt", "in_doubt", Streak.FORGOTTEN)),
    (41028, "f", NEXT),
    (43101, "s", settled("doubt", "in_doubt", Streak.FORGOTTEN)),
    (43101, "f", settled("void_all", "refused", Streak.REFUSAL)),
    (40003, "fps", settled("void_all", "invalid_user", Streak.REFUSAL)),
    (40037, "fps", STOPS_ALL),
    (40001, "fps", back(1000, stale_token=True)),
]


@pytest.mark.parametrize(("errcode", "kinds", "expected"), UNSURE)
def test_what_only_says_used_is_in_doubt_while_redis_may_have_forgotten_a_try(
    errcode: int, kinds: str, expected: Verdict
) -> None:
    for kind in kinds:
        assert verdict_on(answered(errcode), kind, unsure=True) == expected, kind


def test_what_redis_forgot_is_no_error_of_the_broadcast() -> None:
    forgotten = settled("doubt", "in_doubt", Streak.FORGOTTEN)
    lost = Reply(Fate.FORGOTTEN)
    assert verdict_on(lost, "s", unsure=True) == forgotten
    assert verdict_on(lost, "f", unsure=True) == keep(1000)
    assert verdict_on(lost, "f", tries=LAST, unsure=True) == forgotten
    assert verdict_on(answered(41028), "f", resumed=True, unsure=True) == forgotten
    assert verdict_on(answered(41029), "f", resumed=True, unsure=True) == DELIVERED


def test_a_young_prepay_id_waits_also_while_unsure() -> None:
    assert verdict_on(answered(41028), "p", age_ms=60_000, unsure=True).action is Action.DELAY
    tried = verdict_on(answered(41028), "p", age_ms=60_000, tries=2, unsure=True)
    assert tried == settled("doubt", "in_doubt", Streak.FORGOTTEN)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_refused_token_is_told_with_the_last_attempt_too(resumed: bool) -> None:
    """With attempts = 1 nobody else would tell, and the whole audience would fail."""
    for errcode in (40001, 40014, 41001, 42001):
        verdict = verdict_on(answered(errcode), "f", resumed=resumed, tries=LAST)
        assert verdict.action is Action.SETTLE
        assert verdict.outcome == (Outcome.IN_DOUBT if resumed else Outcome.FAILED)
        assert verdict.fate == ("doubt" if resumed else "back")
        assert verdict.stale_token


def test_the_pause_doubles_from_a_second_to_half_a_minute() -> None:
    assert [backoff_ms(tries) for tries in range(8)] == [
        1000,
        2000,
        4000,
        8000,
        16000,
        30000,
        30000,
        30000,
    ]


# -- every errcode ------------------------------------------------------------------------------

EVERY = sorted(RULES)
TRIES = (0, 1, LAST)


def claim_of(kind: str, *, resumed: bool = False, tries: int = 0) -> Claim:
    member = {"f": "f:FORM", "p": "p:wx1234:2", "s": "s:T"}[kind]
    return Claim("shop", 0, "b1", "17:oABC", member, 1, "42", tries, resumed, 0.0)


def check_consistent(verdict: Verdict, found: Rule, kind: str, *, resumed: bool) -> None:
    match verdict.action:
        case Action.SETTLE:
            assert verdict.outcome in set(Outcome)
            assert verdict.delay_ms == 0
        case Action.SWAP:
            assert verdict.outcome in {Outcome.NO_PERMIT, Outcome.FAILED}
            assert not resumed
        case Action.DELAY | Action.KEEP:
            assert verdict.outcome == "-"
            assert verdict.delay_ms > 0
        case Action.REQUEUE:
            assert (verdict.outcome, verdict.delay_ms, verdict.streak) == ("-", 0, Streak.NONE)
    kept = verdict.action is Action.KEEP
    assert kept == (verdict.fate == PermitFate.KEEP)
    assert not kept or kind == "f"
    delivered = verdict.outcome == Outcome.DELIVERED
    assert delivered == (found.errcode == 0 or (resumed and found.errcode == 41029))
    assert delivered == (verdict.fate == PermitFate.SPENT) == (verdict.streak is Streak.OK)
    assert verdict.penalize == (found.disposition is Disposition.BACK_OFF)
    assert (verdict.skip != "-") == (
        verdict.action is Action.SWAP and found.disposition is Disposition.OTHER_KIND
    )


@pytest.mark.parametrize("errcode", EVERY)
@pytest.mark.parametrize("kind", ["f", "p", "s"])
def test_every_errcode_gives_a_consistent_verdict(errcode: int, kind: str) -> None:
    for tries in TRIES:
        verdict = verdict_on(answered(errcode), kind, tries=tries)
        check_consistent(verdict, rule(errcode), kind, resumed=False)
        if verdict.action in {Action.SETTLE, Action.SWAP} and verdict.fate != "doubt":
            assert verdict.fate == rule(errcode).fate


@pytest.mark.parametrize("errcode", EVERY)
def test_a_permit_with_an_unanswered_attempt_is_never_handed_back_or_swapped(errcode: int) -> None:
    for tries in TRIES:
        verdict = verdict_on(answered(errcode), "f", resumed=True, tries=tries)
        check_consistent(verdict, rule(errcode), "f", resumed=True)
        assert verdict.action is not Action.SWAP
        if verdict.action is not Action.REQUEUE:  # settle.lua keeps the permit of a resumed one
            assert verdict.fate in {PermitFate.SPENT, PermitFate.KEEP, "doubt"}


@pytest.mark.parametrize("errcode", [*EVERY, 12345])
@pytest.mark.parametrize("resumed", [False, True])
def test_every_verdict_makes_a_row_that_settle_lua_reads(errcode: int, resumed: bool) -> None:
    lua = files("workers.sending").joinpath("settle.lua").read_text()
    pattern = re.search(r"row, '(\^.*\$)'\)", lua)
    assert pattern, "settle.lua splits its rows by another pattern"
    row_of = re.compile(pattern[1].replace("%S", r"\S"))
    for kind in "f" if resumed else "fps":
        for tries in TRIES:
            reply = answered(errcode)
            verdict = verdict_on(reply, kind, resumed=resumed, tries=tries)
            answer = Answer(claim_of(kind, resumed=resumed, tries=tries), reply, verdict)
            fields = row_of.fullmatch(answer.row())
            assert fields, answer.row()
            assert fields.groups()[:7] == (
                "b1",
                "17:oABC",
                "42",
                str(verdict.action),
                str(verdict.fate),
                str(verdict.outcome),
                str(errcode),
            )
            low, high = verdict.delay_ms, verdict.delay_ms * 5 // 4
            assert low <= int(fields[8]) <= high
            assert fields.groups()[8:] == (str(verdict.streak), verdict.skip, "-")


def test_a_row_carries_the_msgid_and_nothing_of_the_permit() -> None:
    reply = Reply(Fate.ANSWERED, msgid="1988810812324364291")
    row = Answer(claim_of("f"), reply, verdict_on(reply, "f")).row()
    assert row == "b1 17:oABC 42 settle spent delivered 0 0 ok - 1988810812324364291"
    unposted = Answer(claim_of("f"), None, Verdict(Action.REQUEUE, PermitFate.BACK)).row()
    assert unposted == "b1 17:oABC 42 requeue back - 0 0 - - -"
