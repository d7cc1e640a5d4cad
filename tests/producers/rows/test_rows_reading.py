"""Rows of a file: read in every form that people keep them in, and refused with a clear word."""

from pathlib import Path
from typing import Any

import pytest

from producers.broadcasts.spec import Spec
from producers.errors import InvalidInputError
from producers.rows import check_rows
from producers.rows.reading import read_rows

CSV = "openid,name,days\noA,张三,3\noB,李四,12\n"
BOTH = [("oA", ("张三", "3")), ("oB", ("李四", "12"))]


def read(rows: Any, *columns: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.openid, one.values) for one in read_rows(rows, columns or ("name", "days"))]


def spec(**changes: Any) -> Spec:
    given = {"data": {"thing1": "{name}", "number2": "{days}"}, **changes}
    return Spec.checked(app="shop", channel="subscribe", template_id="T", rows=True, **given)


@pytest.mark.parametrize(
    "rows",
    [
        CSV.splitlines(keepends=True),
        CSV.encode().splitlines(),
        ("\ufeff" + CSV).encode().splitlines(),
        CSV.replace("\n", "\r\n").encode().splitlines(keepends=True),
        [b"", b"days,x,OpenId,name", b"3,,oA,\xe5\xbc\xa0\xe4\xb8\x89", '12,"a,b",oB,"李四"'],
        [
            '{"openid": "oA", "name": "张三", "days": 3}',
            '{"openid":"oB","name":"李四","days":"12"}',
        ],
        [
            {"openid": "oA", "name": "张三", "days": 3},
            {"openid": "oB", "name": "李四", "days": "12"},
        ],
    ],
)
def test_one_reading_of_all_forms(rows: Any) -> None:
    assert read(rows) == BOTH


def test_a_cell_may_have_lines_and_a_path_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b'openid,text\r\noA,"a\r\nb"\r\n\r\noB,c')
    assert read(file, "text") == read(str(file), "text") == [("oA", ("a\nb",)), ("oB", ("c",))]


def test_numbers_of_json_stay_as_they_are_written() -> None:
    assert read(['{"openid": "oA", "n": 12.50}'], "n") == [("oA", ("12.50",))]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "the file is empty"),
        (["", "\n"], "the file is empty"),
        (["name,days"], "no column openid; the header names 'name,days'"),
        (["oA"], "the first row must name the columns"),
        (["openid;name;days"], "parted by semicolons; take commas"),
        (["openid\tname"], "parted by tabs"),
        (["openid,name,name,days"], "names 'name' twice"),
        (["openid,name"], "no column 'days' for {days}; the rows have openid, name"),
        ([CSV.encode("utf-16")], "UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
        ([CSV.encode("utf-16-be")], "UTF-16; convert it"),
        (
            CSV.encode("gbk").splitlines(),
            "row 2 is not UTF-8 and looks like GBK; convert it: iconv",
        ),
        ([b"openid,name,days", b"oA,\xff\xff,3"], "row 2 is not UTF-8; save"),
        (["openid,name,days", 'oA,"b'], "is no CSV"),
        (["openid,name,days", "oA," + "b" * 70_000], "row 2 is longer than"),
        ([3], "row 1 is of type int"),
        ("/nowhere/rows.csv", "cannot read /nowhere/rows.csv"),
    ],
)
def test_what_makes_all_rows_wrong_is_said(rows: Any, says: str) -> None:
    with pytest.raises(InvalidInputError) as wrong:
        read(rows)
    assert says in str(wrong.value)


@pytest.mark.parametrize(
    ("row", "rule", "says"),
    [
        ("oX,a", "columns", "2 cells; the header names 3 columns"),
        ("oX,a,1,2", "columns", "4 cells"),
        ("o X,a,1", "openid", "no openid"),
        ("oX,a\x07,1", "columns", "column 'name' has control characters"),
        (f"oX,{'a' * 1025},1", "columns", "more than 1,024"),
        (f"oX,{'长' * 21},1", "thing1 invalid", "up to 20 characters"),
        ("oX,,1", "thing1 empty", "thing1 is empty"),
        ("oX,a,x", "number2 invalid", "up to 32 digits"),
        ("oA,a,1", "duplicate", "has a row before"),
    ],
)
def test_a_bad_row_is_told_by_its_number_and_the_rule(row: str, rule: str, says: str) -> None:
    report = check_rows(spec(), [*CSV.splitlines(), row, "oC,c,3"])
    assert (report.rows, report.good, dict(report.rules)) == (4, 3, {rule: 1})
    ((number, detail),) = report.listed
    assert number == 4
    assert says in detail


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"openid": "oX", "name": "a"}', "no column 'days'"),
        ('{"openid": "oX", "name": null, "days": 1}', "neither text nor number in column 'name'"),
        ('{"openid": "oX", "name": "a", "days": true}', "neither text nor number"),
        ('{"openid": "oX", "name": NaN, "days": 1}', "neither text nor number in column 'name'"),
        ('{"openid": "a b"}', "no openid"),
        ("[1]", "no object"),
        ("{", "no JSON object"),
        (r'{"openid": "oX", "name": "\ud800", "days": 1}', "control characters"),
    ],
)
def test_a_bad_row_of_json_is_told_too(row: str, says: str) -> None:
    report = check_rows(spec(), ['{"openid": "oA", "name": "a", "days": 1}', row])
    assert (report.rows, report.bad) == (2, 1)
    assert says in report.listed[0][1]


def test_a_page_is_checked_as_it_would_be_sent() -> None:
    said = spec(page="pages/x?name={name}")
    long = "长" * 200  # nine characters each, percent-encoded
    report = check_rows(
        spec(data={"thing1": "{name|thing}"}, page=said.page),
        [f"openid,name\noA,{long}".split("\n")[0], f"oA,{long}"],
    )
    assert dict(report.rules) == {"page": 1}


def test_what_is_said_is_checked_before_the_rows_are_read() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        (
            {"data": {"thing1": "a} b"}},
            "thing1: 'a} b' has a lone }; write }} for the brace itself",
        ),
        ({"data": {"thing1": "{}"}}, "{} names no column"),
        ({"data": {"thing1": "{a|date}"}}, "'date' shortens nothing"),
        ({"data": {"thing1": "长" * 21}}, "up to 20 characters"),
        ({"data": {"keyword1": "{a}"}}, "the key 'keyword1' is unknown"),
        ({"page": "https://{name}"}, "an address with a scheme"),
        ({"page": "p?{"}, "page: 'p?{' has a lone {"),
        ({"audience": "all"}, "audience: the rows say who it is for"),
    ]
    for given, says in wrong:
        with pytest.raises(InvalidInputError) as error:
            spec(**given)
        assert says in str(error.value)


def test_without_a_hole_all_are_told_the_same() -> None:
    said = spec(data={"thing1": "{{a}}"}, page="p?{{")
    assert (said.data, said.page, said.columns) == ({"thing1": "{a}"}, "p?{", ())
    plain = Spec.checked(
        app="s", channel="subscribe", template_id="T", audience="a", data={"thing1": "{a}"}
    )
    assert plain.data == {"thing1": "{a}"}  # as before there were rows
