"""What phones upload: every documented shape is read, every element ends as item or refusal."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.permits.refusals import Reason, Refusal
from producers.permits.uploads import (
    MAX_ITEMS,
    MAX_LINE_BYTES,
    PermitItem,
    parse_line,
    parse_upload,
)
from producers.words import PermitKind

USER = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
FORM = "a" * 32
PREPAY = "wx201410272009395522657a690389285100"
TEMPLATE = "zun-LzcQyW-edafCVvzPkK4de2Rllr1fFpw2A_x0oXE"
AT_MS = 1_577_808_000_000


def form(permit_id: str, expires_at_ms: int | None = None) -> PermitItem:
    return PermitItem(USER, PermitKind.FORM_ID, permit_id, expires_at_ms)


def prepay(permit_id: str, expires_at_ms: int | None = None) -> PermitItem:
    return PermitItem(USER, PermitKind.PREPAY_ID, permit_id, expires_at_ms)


def subscription(template_id: str, accepted: bool = True, **source: Any) -> PermitItem:
    return PermitItem(USER, PermitKind.SUBSCRIPTION, template_id, None, accepted, **source)


def reasons(upload: object) -> list[Reason]:
    """Parse an upload of which nothing may be accepted."""
    items, refusals = parse_upload(upload)
    assert items == []
    return [refusal.reason for refusal in refusals]


@pytest.mark.parametrize(
    ("parts", "items"),
    [
        ({"formIds": [{"formId": FORM, "expire": AT_MS}]}, [form(FORM, AT_MS)]),
        ({"formIds": [{"formId": FORM}, {"formId": "b"}]}, [form(FORM), form("b")]),
        ({"formIds": [FORM, {"form_id": "b", "expire": AT_MS}]}, [form(FORM), form("b", AT_MS)]),
        (
            {"formIds": ["a", {"formId": "b", "expire": 9}], "expire": 7},
            [form("a", 7000), form("b", 9000)],
        ),
        ({"formIds": FORM}, [form(FORM)]),
        ({"formIds": {"formId": FORM}}, [form(FORM)]),
        ({"formIds": json.dumps([{"formId": FORM, "expire": AT_MS}])}, [form(FORM, AT_MS)]),
        ({"formIds": json.dumps({"formId": FORM})}, [form(FORM)]),
        ({"formIds": [json.dumps({"formId": FORM, "expire": AT_MS})]}, [form(FORM, AT_MS)]),
        ({"form_ids": [FORM]}, [form(FORM)]),
        ({"formId": FORM, "expire": AT_MS}, [form(FORM, AT_MS)]),
        ({"form_id": "1533045962345"}, [form("1533045962345")]),
        ({"formIds": []}, []),
        ({"prepayId": PREPAY}, [prepay(PREPAY)]),
        ({"prepay_id": PREPAY, "expire": AT_MS}, [prepay(PREPAY, AT_MS)]),
        ({"prepayId": f"prepay_id={PREPAY}"}, [prepay(PREPAY)]),
        (
            {"prepayIds": ["p1", {"prepayId": "p2", "expire": 5}]},
            [prepay("p1"), prepay("p2", 5000)],
        ),
        ({"prepay_ids": json.dumps(["p1", "p2"])}, [prepay("p1"), prepay("p2")]),
        ({"subscriptions": {TEMPLATE: "accept"}}, [subscription(TEMPLATE)]),
        ({"subscriptions": {TEMPLATE: "acceptWithAudio"}}, [subscription(TEMPLATE)]),
        ({"subscriptions": {TEMPLATE: "acceptWithAlert"}}, [subscription(TEMPLATE)]),
        ({"subscriptions": {TEMPLATE: "acceptWithForcePush"}}, [subscription(TEMPLATE)]),
        ({"subscriptions": {TEMPLATE: "reject"}}, [subscription(TEMPLATE, accepted=False)]),
        (
            {"subscriptions": {"errMsg": "requestSubscribeMessage:ok", TEMPLATE: "accept"}},
            [subscription(TEMPLATE)],
        ),
        ({"subscriptions": json.dumps({TEMPLATE: "accept"})}, [subscription(TEMPLATE)]),
        ({"subscriptions": {}}, []),
        (
            {"subscriptions": {TEMPLATE: "accept", "t2": "reject"}, "id": "visit-7"},
            [
                subscription(TEMPLATE, source_id="visit-7"),
                subscription("t2", accepted=False, source_id="visit-7"),
            ],
        ),
        (
            {"subscriptions": {TEMPLATE: "accept"}, "at": AT_MS // 1000},
            [subscription(TEMPLATE, source_id=f"at:{AT_MS}", at_ms=AT_MS)],
        ),
        (
            {"subscriptions": {TEMPLATE: "accept"}, "id": 7, "at": str(AT_MS)},
            [subscription(TEMPLATE, source_id="7", at_ms=AT_MS)],
        ),
        (
            {"subscriptions": {"t": "accept"}, "formId": "f", "prepayId": "p", "scene": 1001},
            [subscription("t"), form("f"), prepay("p")],
        ),
    ],
)
def test_every_shape_is_read(parts: dict[str, Any], items: list[PermitItem]) -> None:
    upload = {"openid": USER, **parts}
    assert parse_upload(upload) == (items, [])
    line = json.dumps(upload)
    assert parse_upload(line) == (items, [])
    assert parse_line(line) == (items, [])
    assert parse_line(line.encode()) == (items, [])
    assert parse_line(json.dumps(line)) == (items, [])


@pytest.mark.parametrize(
    ("expire", "expires_at_ms"),
    [
        (AT_MS, AT_MS),
        (AT_MS // 1000, AT_MS),
        (1_577_808_000.5, 1_577_808_000_500),
        (float(AT_MS), AT_MS),
        (str(AT_MS), AT_MS),
        (str(AT_MS // 1000), AT_MS),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (0, 0),
        (10**30, 2**53 - 1),
        (float("inf"), 2**53 - 1),
        (None, None),
    ],
)
def test_an_expiry_is_ms_or_seconds(expire: object, expires_at_ms: int | None) -> None:
    upload = {"openid": USER, "formIds": [{"formId": FORM, "expire": expire}]}
    assert parse_upload(upload) == ([form(FORM, expires_at_ms)], [])


@pytest.mark.parametrize(
    "expire",
    [-1, -0.5, "", "-1", "soon", "1e12", "1.5", "१२३", "9" * 5000, True, [], {}, float("nan")],
)
def test_no_epoch_time_is_a_bad_expire(expire: object) -> None:
    for name, permit_id in (("formIds", FORM), ("prepayIds", PREPAY)):
        assert reasons({"openid": USER, name: [permit_id], "expire": expire}) == ["bad_expire"]


@pytest.mark.parametrize(
    ("form_id", "reason"),
    [
        ("the formId is a mock one", "mock_form_id"),
        ("requestFormId:fail timeout", "failed_form_id"),
        ("requestFormId:fail", "failed_form_id"),
        ("", "empty_form_id"),
        (" ", "empty_form_id"),
        ("undefined", "empty_form_id"),
        ("null", "empty_form_id"),
        (None, "empty_form_id"),
        ({}, "empty_form_id"),
        ("two words", "bad_permit_id"),
        ("line\n", "bad_permit_id"),
        ("表单", "bad_permit_id"),
        ("half \ud800", "bad_permit_id"),
        ("x" * 129, "bad_permit_id"),
        ("[abc", "bad_permit_id"),
        (json.dumps(json.dumps([FORM])), "bad_permit_id"),
        (7, "bad_shape"),
        (True, "bad_shape"),
        ([FORM], "bad_shape"),
    ],
)
def test_what_is_no_form_id_is_refused_by_its_reason(form_id: object, reason: str) -> None:
    assert reasons({"openid": USER, "formIds": [form_id]}) == [reason]
    assert reasons({"openid": USER, "formIds": [{"formId": form_id}]}) in (
        [[reason], ["bad_shape"]] if isinstance(form_id, dict) else [[reason]]
    )


@pytest.mark.parametrize(
    ("prepay_id", "reason"),
    [
        ("4200000001202002140123456789", "transaction_id"),
        ("", "empty_prepay_id"),
        ("undefined", "empty_prepay_id"),
        ("prepay_id=", "empty_prepay_id"),
        ("prepay_id=undefined", "empty_prepay_id"),
        (None, "empty_prepay_id"),
        ("wx 1", "bad_permit_id"),
        (7, "bad_shape"),
    ],
)
def test_what_is_no_prepay_id_is_refused_by_its_reason(prepay_id: object, reason: str) -> None:
    assert reasons({"openid": USER, "prepayId": prepay_id}) == [reason]


@pytest.mark.parametrize(
    ("subscriptions", "reason"),
    [
        ({TEMPLATE: "ban"}, "user_ban"),
        ({TEMPLATE: "filter"}, "user_filter"),
        ({TEMPLATE: "Accept"}, "unknown_result"),
        ({TEMPLATE: ""}, "unknown_result"),
        ({TEMPLATE: None}, "unknown_result"),
        ({"errCode": 20004}, "unknown_result"),
        ({"": "accept"}, "bad_template_id"),
        ({"a b": "accept"}, "bad_template_id"),
        ({"x" * 129: "accept"}, "bad_template_id"),
        ({7: "accept"}, "bad_template_id"),
        ([TEMPLATE], "bad_shape"),
        ("accept", "bad_shape"),
        (None, "bad_shape"),
    ],
)
def test_other_choices_are_refused_by_their_reason(subscriptions: object, reason: str) -> None:
    assert reasons({"openid": USER, "subscriptions": subscriptions}) == [reason]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"id": ""}, "bad_source_id"),
        ({"id": "a b"}, "bad_source_id"),
        ({"id": 10**400}, "bad_source_id"),
        ({"id": True}, "bad_source_id"),
        ({"at": "yesterday"}, "bad_at"),
        ({"at": -1}, "bad_at"),
        ({"id": "good", "at": []}, "bad_at"),
    ],
)
def test_what_could_not_be_counted_once_is_not_counted(source: dict[str, Any], reason: str) -> None:
    upload = {"openid": USER, "subscriptions": {TEMPLATE: "accept", "t2": "reject"}, **source}
    assert reasons(upload) == [reason, reason]
    items, _ = parse_upload({**upload, "formId": FORM})
    assert items == [form(FORM)]


@pytest.mark.parametrize(
    "openid", [None, "", "undefined", "null", "a b", "o\n", "x" * 65, 7, "用户", []]
)
def test_no_openid_is_one_refusal(openid: object) -> None:
    assert reasons({"openid": openid, "formIds": ["a", "b"]}) == ["bad_openid"]


@pytest.mark.parametrize(
    ("upload", "reason"),
    [
        ({"formIds": [FORM]}, "bad_openid"),
        ({"openid": USER}, "bad_shape"),
        ({"openid": USER, "formid": FORM}, "bad_shape"),
        ([], "bad_shape"),
        (None, "bad_shape"),
        (7, "bad_shape"),
        (b"{}", "bad_shape"),
        ("", "bad_shape"),
        ("hello", "bad_shape"),
        (json.dumps(json.dumps({"openid": USER, "formId": FORM})), "bad_shape"),
        ('"' + "x" * MAX_LINE_BYTES + '"', "line_too_long"),
    ],
)
def test_no_upload_is_one_refusal(upload: object, reason: str) -> None:
    assert reasons(upload) == [reason]


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"{'a': 1}", "half \ud800", b"[" * 100_000])
def test_a_line_that_is_no_json_is_one_refusal(line: bytes | str) -> None:
    items, refusals = parse_line(line)
    assert items == []
    assert [refusal.reason for refusal in refusals] == ["not_json"]


@pytest.mark.parametrize("line", [b"", b"\n", "", "  \r\n"])
def test_a_blank_line_holds_nothing(line: bytes | str) -> None:
    assert parse_line(line) == ([], [])


def test_a_line_is_bounded_in_bytes() -> None:
    upload = json.dumps({"openid": USER, "formId": FORM}).encode()
    assert parse_line(upload.ljust(MAX_LINE_BYTES)) == ([form(FORM)], [])
    for line in (upload.ljust(MAX_LINE_BYTES + 1), "汉" * (MAX_LINE_BYTES // 3 + 1)):
        items, refusals = parse_line(line)
        assert items == []
        assert [refusal.reason for refusal in refusals] == ["line_too_long"]


@pytest.mark.parametrize(
    "parts",
    [
        {"formIds": [f"f{n}" for n in range(MAX_ITEMS + 2)]},
        {"subscriptions": {f"t{n}": "accept" for n in range(MAX_ITEMS + 2)}},
        {"formIds": [""] * MAX_ITEMS, "formId": FORM, "prepayId": PREPAY},
        {"formIds": [""] * MAX_ITEMS, "formId": FORM, "subscriptions": {TEMPLATE: "accept"}},
        {"formIds": [""] * MAX_ITEMS, "formId": FORM, "subscriptions": None},
    ],
)
def test_what_is_beyond_the_bound_shares_one_refusal(parts: dict[str, Any]) -> None:
    items, refusals = parse_upload({"openid": USER, **parts})
    assert len(items) + len(refusals) == MAX_ITEMS + 1
    assert refusals[-1].reason == "too_many_items"
    assert refusals[-1].detail.startswith("2 items were left out")


def test_a_bad_element_costs_none_of_its_siblings() -> None:
    elements = [
        "a",
        "the formId is a mock one",
        {"formId": "b", "expire": "soon"},
        None,
        {"formId": "c"},
    ]
    items, refusals = parse_upload({"openid": USER, "formIds": elements})
    assert items == [form("a"), form("c")]
    assert [refusal.reason for refusal in refusals] == [
        "mock_form_id",
        "bad_expire",
        "empty_form_id",
    ]


def test_a_refusal_shows_little_of_the_input() -> None:
    secret = "abcdefghij" * 20
    for upload in (
        secret,
        {"openid": secret},
        {"openid": USER, "formId": secret},
        {"openid": USER, "formId": "requestFormId:fail" + secret},
        {"openid": USER, "formId": FORM, "expire": secret},
        {"openid": USER, "subscriptions": {secret: "accept"}},
        {"openid": USER, "subscriptions": {TEMPLATE: secret}},
        {"openid": USER, "subscriptions": secret},
        {"openid": USER, "subscriptions": {TEMPLATE: "accept"}, "at": secret},
    ):
        (refusal,) = parse_upload(upload)[1]
        assert secret[:60] not in refusal.detail
        assert "accepted: " in refusal.detail
    (refusal,) = parse_line(secret)[1]
    assert secret[:60] not in refusal.detail


def test_a_refusal_never_repeats_a_whole_good_permit() -> None:
    late = {"openid": USER, "formId": FORM, "prepayId": PREPAY, "expire": "soon"}
    frayed = {"openid": USER, "formId": FORM + "\n", "prepayId": PREPAY + " "}
    for refusal in parse_upload(late)[1] + parse_upload(frayed)[1]:
        assert FORM not in refusal.detail
        assert PREPAY not in refusal.detail


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["formId", "expire"]), inner)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["openid", "formIds", "form_id", "expire", "prepayId", "prepayIds", "subscriptions", "id", "at"]
)


def well_formed(parsed: tuple[list[PermitItem], list[Refusal]]) -> bool:
    items, refusals = parsed
    return all(
        0 < len(item.id) <= 128
        and item.id.isascii()
        and (item.expires_at_ms is None or 0 <= item.expires_at_ms < 2**53)
        for item in items
    ) and all(refusal.detail.encode() for refusal in refusals)


@given(st.binary() | st.text())
def test_any_bytes_are_parsed(line: bytes | str) -> None:
    assert well_formed(parse_line(line))


@given(JSON_LIKE | st.dictionaries(KEYS, JSON_LIKE))
def test_any_json_is_parsed(upload: object) -> None:
    assert well_formed(parse_upload(upload))
    assert well_formed(parse_line(json.dumps(upload, allow_nan=True)))


LISTS = st.lists(JSON_LIKE | st.text("ab1 ", max_size=4), max_size=20)


@given(
    st.fixed_dictionaries(
        {"openid": st.just(USER)},
        optional={
            "formIds": LISTS,
            "prepay_ids": LISTS,
            "subscriptions": st.dictionaries(st.text(max_size=8), JSON_LIKE, max_size=20),
            "expire": JSON_LIKE,
            "id": JSON_LIKE,
            "at": JSON_LIKE,
        },
    )
)
def test_every_element_is_an_item_or_a_refusal(upload: dict[str, Any]) -> None:
    parts = [upload[key] for key in ("formIds", "prepay_ids", "subscriptions") if key in upload]
    items, refusals = parse_upload(upload)
    elements = sum(map(len, parts)) - ("errMsg" in upload.get("subscriptions", ()))
    assert len(items) + len(refusals) == (elements if parts else 1)


@given(st.lists(st.fixed_dictionaries({"formId": st.text(), "expire": st.integers(0, 2**50)})))
def test_encoding_twice_changes_nothing(elements: list[dict[str, Any]]) -> None:
    once = parse_line(orjson.dumps({"openid": USER, "formIds": elements}))
    upload = json.dumps({"openid": USER, "formIds": json.dumps(elements)})
    assert parse_line(upload) == once
    assert parse_line(json.dumps(upload)) == once
