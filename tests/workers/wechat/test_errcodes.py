"""The errcode table, row by row, and against the documentation's own list."""

import re
from collections.abc import Iterator

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from workers.wechat.errcodes import BACK_OFFS, RULES, Disposition, PermitFate, Rule, rule

EXPECTED = [
    (0, Disposition.DELIVERED, PermitFate.SPENT),
    (-1, Disposition.SAME_PERMIT, PermitFate.KEEP),
    (40001, Disposition.REFRESH_TOKEN, PermitFate.BACK),
    (40002, Disposition.ABORT, PermitFate.BACK),
    (40003, Disposition.INVALID_USER, PermitFate.VOID_ALL),
    (40008, Disposition.ABORT, PermitFate.BACK),
    (40013, Disposition.ABORT, PermitFate.BACK),
    (40014, Disposition.REFRESH_TOKEN, PermitFate.BACK),
    (40029, Disposition.NOT_A_SEND, PermitFate.VOID),
    (40033, Disposition.ABORT, PermitFate.BACK),
    (40036, Disposition.ABORT, PermitFate.BACK),
    (40037, Disposition.ABORT, PermitFate.BACK),
    (40038, Disposition.FAILED, PermitFate.VOID),
    (40039, Disposition.ABORT, PermitFate.BACK),
    (40062, Disposition.ABORT, PermitFate.BACK),
    (40066, Disposition.ABORT, PermitFate.BACK),
    (40125, Disposition.ABORT, PermitFate.BACK),
    (40138, Disposition.ABORT, PermitFate.BACK),
    (40163, Disposition.NOT_A_SEND, PermitFate.VOID),
    (40164, Disposition.ABORT, PermitFate.BACK),
    (40165, Disposition.ABORT, PermitFate.BACK),
    (40166, Disposition.ABORT, PermitFate.BACK),
    (40201, Disposition.NOT_A_SEND, PermitFate.VOID),
    (40202, Disposition.NOT_A_SEND, PermitFate.VOID),
    (40203, Disposition.NOT_A_SEND, PermitFate.VOID),
    (40226, Disposition.NOT_A_SEND, PermitFate.VOID),
    (40230, Disposition.ABORT, PermitFate.BACK),
    (40231, Disposition.ABORT, PermitFate.BACK),
    (40232, Disposition.ABORT, PermitFate.BACK),
    (40233, Disposition.ABORT, PermitFate.BACK),
    (40234, Disposition.ABORT, PermitFate.BACK),
    (40235, Disposition.ABORT, PermitFate.BACK),
    (40236, Disposition.ABORT, PermitFate.BACK),
    (40237, Disposition.ABORT, PermitFate.BACK),
    (40238, Disposition.ABORT, PermitFate.BACK),
    (40239, Disposition.ABORT, PermitFate.BACK),
    (40240, Disposition.ABORT, PermitFate.BACK),
    (40243, Disposition.ABORT, PermitFate.BACK),
    (40249, Disposition.ABORT, PermitFate.BACK),
    (40400, Disposition.NOT_A_SEND, PermitFate.VOID),
    (41001, Disposition.REFRESH_TOKEN, PermitFate.BACK),
    (41002, Disposition.ABORT, PermitFate.BACK),
    (41004, Disposition.ABORT, PermitFate.BACK),
    (41028, Disposition.NEXT_PERMIT, PermitFate.VOID),
    (41029, Disposition.NEXT_PERMIT, PermitFate.VOID),
    (41030, Disposition.ABORT, PermitFate.BACK),
    (41031, Disposition.NEXT_PERMIT, PermitFate.VOID),
    (41032, Disposition.OTHER_KIND, PermitFate.BACK),
    (41034, Disposition.OTHER_KIND, PermitFate.BACK),
    (41035, Disposition.OTHER_KIND, PermitFate.BACK),
    (42001, Disposition.REFRESH_TOKEN, PermitFate.BACK),
    (43001, Disposition.ABORT, PermitFate.BACK),
    (43002, Disposition.ABORT, PermitFate.BACK),
    (43003, Disposition.ABORT, PermitFate.BACK),
    (43004, Disposition.REFUSED, PermitFate.BACK),
    (43019, Disposition.REFUSED, PermitFate.BACK),
    (43100, Disposition.NOT_A_SEND, PermitFate.VOID),
    (43101, Disposition.REFUSED, PermitFate.VOID_ALL),
    (43102, Disposition.ABORT, PermitFate.BACK),
    (43103, Disposition.FAILED, PermitFate.VOID),
    (43104, Disposition.ABORT, PermitFate.BACK),
    (43105, Disposition.ABORT, PermitFate.BACK),
    (43106, Disposition.ABORT, PermitFate.BACK),
    (43107, Disposition.ABORT, PermitFate.BACK),
    (43108, Disposition.DELAY, PermitFate.BACK),
    (43116, Disposition.ABORT, PermitFate.BACK),
    (44002, Disposition.ABORT, PermitFate.BACK),
    (44990, Disposition.BACK_OFF, PermitFate.BACK),
    (45002, Disposition.ABORT, PermitFate.BACK),
    (45009, Disposition.BACK_OFF, PermitFate.BACK),
    (45011, Disposition.BACK_OFF, PermitFate.BACK),
    (45012, Disposition.ABORT, PermitFate.BACK),
    (45013, Disposition.ABORT, PermitFate.BACK),
    (45014, Disposition.ABORT, PermitFate.BACK),
    (45026, Disposition.NOT_A_SEND, PermitFate.VOID),
    (45100, Disposition.NOT_A_SEND, PermitFate.VOID),
    (45102, Disposition.BACK_OFF, PermitFate.BACK),
    (45103, Disposition.ABORT, PermitFate.BACK),
    (45109, Disposition.ABORT, PermitFate.BACK),
    (45168, Disposition.BAD_DATA, PermitFate.BACK),
    (45501, Disposition.BACK_OFF, PermitFate.BACK),
    (46004, Disposition.INVALID_USER, PermitFate.VOID_ALL),
    (46101, Disposition.ABORT, PermitFate.BACK),
    (47001, Disposition.ABORT, PermitFate.BACK),
    (47002, Disposition.ABORT, PermitFate.BACK),
    (47003, Disposition.BAD_DATA, PermitFate.BACK),
    (48001, Disposition.ABORT, PermitFate.BACK),
    (48002, Disposition.REFUSED, PermitFate.BACK),
    (48004, Disposition.ABORT, PermitFate.BACK),
    (48006, Disposition.NOT_A_SEND, PermitFate.VOID),
    (48008, Disposition.ABORT, PermitFate.BACK),
    (48009, Disposition.ABORT, PermitFate.BACK),
    (48011, Disposition.ABORT, PermitFate.BACK),
    (49003, Disposition.INVALID_USER, PermitFate.VOID_ALL),
    (50001, Disposition.ABORT, PermitFate.BACK),
    (50002, Disposition.ABORT, PermitFate.BACK),
    (50004, Disposition.ABORT, PermitFate.BACK),
    (50005, Disposition.REFUSED, PermitFate.BACK),
    (50007, Disposition.ABORT, PermitFate.BACK),
    (61004, Disposition.ABORT, PermitFate.BACK),
    (76001, Disposition.NOT_A_SEND, PermitFate.VOID),
    (76002, Disposition.NOT_A_SEND, PermitFate.VOID),
    (76003, Disposition.NOT_A_SEND, PermitFate.VOID),
    (76004, Disposition.NOT_A_SEND, PermitFate.VOID),
    (76021, Disposition.NOT_A_SEND, PermitFate.VOID),
    (76022, Disposition.NOT_A_SEND, PermitFate.VOID),
    (87009, Disposition.NOT_A_SEND, PermitFate.VOID),
    (89503, Disposition.ABORT, PermitFate.BACK),
    (89506, Disposition.ABORT, PermitFate.BACK),
    (89507, Disposition.ABORT, PermitFate.BACK),
    (404, Disposition.NOT_A_SEND, PermitFate.VOID),
    (20001, Disposition.NOT_A_SEND, PermitFate.VOID),
    (20002, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200001, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200002, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200011, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200012, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200013, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200014, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200016, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200017, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200018, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200019, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200020, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200021, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200022, Disposition.NOT_A_SEND, PermitFate.VOID),
    (200100, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85431, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85432, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85433, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85434, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85435, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85436, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85437, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85438, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85439, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85440, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85441, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85442, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85443, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85444, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85445, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85446, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85447, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85448, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85449, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85450, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85451, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85452, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85453, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85454, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85455, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85456, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85457, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85458, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85459, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85460, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85461, Disposition.NOT_A_SEND, PermitFate.VOID),
    (85462, Disposition.NOT_A_SEND, PermitFate.VOID),
    (9800001, Disposition.FAILED, PermitFate.BACK),
    (9800002, Disposition.FAILED, PermitFate.BACK),
    (9800003, Disposition.FAILED, PermitFate.BACK),
    (9800006, Disposition.FAILED, PermitFate.BACK),
]


@pytest.mark.parametrize(("errcode", "disposition", "fate"), EXPECTED)
def test_the_row_of(errcode: int, disposition: Disposition, fate: PermitFate) -> None:
    found = rule(errcode)
    assert found is RULES[errcode]
    assert (found.errcode, found.disposition, found.fate) == (errcode, disposition, fate)
    assert found.reason
    assert set(found.apis) <= set("TFSDONLQ")


def test_no_row_goes_untested() -> None:
    assert set(RULES) == {errcode for errcode, _, _ in EXPECTED}


@given(st.integers().filter(lambda errcode: errcode not in RULES))
def test_an_unknown_errcode_fails_its_recipient_and_voids_the_permit(errcode: int) -> None:
    found = rule(errcode)
    assert found == Rule(errcode, "", Disposition.UNKNOWN, PermitFate.VOID, found.reason, "")


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        RULES[0] = rule(1)  # type: ignore[index]


@pytest.mark.parametrize(
    ("disposition", "fates"),
    [
        (Disposition.DELIVERED, {PermitFate.SPENT}),
        (Disposition.SAME_PERMIT, {PermitFate.KEEP}),
        (Disposition.NEXT_PERMIT, {PermitFate.VOID}),
        (Disposition.OTHER_KIND, {PermitFate.BACK}),
        (Disposition.REFRESH_TOKEN, {PermitFate.BACK}),
        (Disposition.BACK_OFF, {PermitFate.BACK}),
        (Disposition.DELAY, {PermitFate.BACK}),
        (Disposition.REFUSED, {PermitFate.BACK, PermitFate.VOID_ALL}),
        (Disposition.INVALID_USER, {PermitFate.VOID_ALL}),
        (Disposition.BAD_DATA, {PermitFate.BACK}),
        (Disposition.FAILED, {PermitFate.BACK, PermitFate.VOID}),
        (Disposition.ABORT, {PermitFate.BACK}),
        (Disposition.NOT_A_SEND, {PermitFate.VOID}),
    ],
)
def test_a_disposition_has_its_fates(disposition: Disposition, fates: set[PermitFate]) -> None:
    rows = [row for row in RULES.values() if row.disposition is disposition]
    assert {row.fate for row in rows} == fates


def test_every_limit_has_its_waits_and_nothing_else_has() -> None:
    limits = {row.errcode for row in RULES.values() if row.disposition is Disposition.BACK_OFF}
    assert set(BACK_OFFS) == limits


@pytest.mark.parametrize(
    ("errcode", "back_off"),
    [
        (44990, (1_000, 5_000, 10_000, False)),
        (45009, (5_000, 600_000, 0, False)),
        (45011, (5_000, 60_000, 60_000, True)),
        (45102, (30_000, 600_000, 60_000, False)),
        (45501, (30_000, 600_000, 60_000, False)),
    ],
)
def test_a_limit_backs_off_by(errcode: int, back_off: tuple[int, int, int, bool]) -> None:
    assert BACK_OFFS[errcode] == back_off


def _documented() -> Iterator[int]:
    """Yield each errcode that the reference's table names, its ranges expanded."""
    text = samples.REFERENCE.read_text(encoding="utf-8")
    table = text[text.index("\n## 9. ") : text.index("\n## 10. ")]
    for line in table.splitlines():
        if not line.startswith("| ") or line.startswith(("| code", "| (none)", "| event", "| any")):
            continue
        codes = line.split("|")[1]
        for first, last in re.findall(r"(-?\d+)(?:–(\d+))?", codes):
            yield from range(int(first), int(last or first) + 1)
    management = text[text.index("\n### 3.6 ") : text.index("\n### 3.7 ")]
    yield from map(int, re.findall(r"\b(20000[12]|2000[12]\d|200100|2000[12]|404)\b", management))


@samples.needs_reference
def test_no_documented_errcode_is_missing() -> None:
    documented = set(_documented())
    assert len(documented) > 150
    assert documented <= set(RULES)
