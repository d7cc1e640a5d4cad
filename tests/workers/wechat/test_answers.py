"""What the sender of a test is told of WeChat's codes, beside what the workers make of them."""

from producers.rehearsals.answers import CODES, meaning_of
from producers.words import Outcome
from workers.wechat.errcodes import RULES, Disposition


def test_every_code_that_a_send_may_answer_has_a_meaning_and_an_advice() -> None:
    of_sends = {
        code
        for code, rule in RULES.items()
        if code and {"F", "S"} & {*rule.apis} and rule.disposition is not Disposition.NOT_A_SEND
    }
    assert of_sends == {*CODES}
    assert all(one.meaning and one.advice for one in CODES.values())


def test_every_outcome_has_one_too_and_an_unknown_code_that_of_its_outcome() -> None:
    for outcome in Outcome:
        assert meaning_of(outcome, 0).meaning
    assert meaning_of("failed", 99_999) == meaning_of("failed", 0)
    assert meaning_of("failed", 40037).meaning == "WeChat does not know the template"
