"""Expressions: read with the place of each fault, written one way, and answered as sets are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.audiences.expressions import MOST_NAMES, MOST_TEXT, Expression, Node, _written
from producers.errors import InvalidInputError

NAMES = ("a", "b", "old-vip", "x.y_z")
EVERYBODY = frozenset(range(16))
MEMBERS = {name: frozenset(n for n in EVERYBODY if n >> bit & 1) for bit, name in enumerate(NAMES)}


def trees() -> st.SearchStrategy[Node]:
    return st.recursive(
        st.sampled_from(NAMES),
        lambda node: st.tuples(st.sampled_from("&|-"), node, node),
        max_leaves=10,
    )


def meant(node: Node) -> frozenset[int]:
    """Return whom a tree means, by Python's own sets."""
    if isinstance(node, str):
        return MEMBERS[node]
    operator, left, right = node
    first, second = meant(left), meant(right)
    return {"|": first | second, "&": first & second, "-": first - second}[operator]


@given(trees())
def test_what_is_written_is_read_again_and_means_the_same(tree: Node) -> None:
    found = Expression.read(_written(tree))
    assert Expression.read(found.text) == found
    assert Expression.stored(found.text) == found
    for one in EVERYBODY:
        member = {name: one in MEMBERS[name] for name in NAMES}
        assert found.holds(member) == (one in meant(tree))


@pytest.mark.parametrize(
    ("text", "written", "postfix"),
    [
        ("vip", "vip", "vip"),
        (" (vip) ", "vip", "vip"),
        ("old-vip", "old-vip", "old-vip"),
        ("a-b - c", "a-b - c", "a-b c -"),
        ("vip & active - churned", "vip & active - churned", "vip active & churned -"),
        ("vip&active -churned", "vip & active - churned", "vip active & churned -"),
        ("a - b - c", "a - b - c", "a b - c -"),
        ("a - (b - c)", "a - (b - c)", "a b c - -"),
        ("a | b|c", "a | b | c", "a b | c |"),
        ("(a | b) - c", "(a | b) - c", "a b | c -"),
        ("a | (b - c)", "a | (b - c)", "a b c - |"),
        ("((a|b))&(c|d)", "(a | b) & (c | d)", "a b | c d | &"),
        ("(a & b) - c", "a & b - c", "a b & c -"),
        ("(a)-b", "a - b", "a b -"),
        ("all - churned", "all - churned", "all churned -"),
    ],
)
def test_an_expression_has_one_way_of_being_written(text: str, written: str, postfix: str) -> None:
    found = Expression.read(text)
    assert (found.text, found.postfix) == (written, postfix)
    assert found.is_name == (" " not in postfix)


@pytest.mark.parametrize(
    ("text", "at", "sentence"),
    [
        ("a &", 4, "a name or ( is missing after '&'"),
        ("& a", 1, "a name or ( is missing"),
        ("a & & b", 5, "a name or ( is missing after '&'"),
        ("a b", 3, "put & | or - before 'b'"),
        ("a- b", 4, "put & | or - before 'b'"),
        ("(a | b", 7, "the ( at 1 is not closed"),
        ("a | b)", 6, "this ) closes nothing"),
        ("()", 2, "a name or ( is missing after '('"),
        ("a + b", 3, "`|` is the union"),
        ("a, b", 2, "`|` is the union"),
        ("a ＆ b", 3, "'＆' is neither of a name"),
        ("（a)", 1, "take ( and )"),
        ("vip | new - churned", 11, "can be read in two ways"),
        ("vip & new | churned", 11, "(a | b) - c or a | (b - c)"),
        ("a & " + "b" * 65, 5, "at most 64 characters"),
        ("(" * 17 + "a" + ")" * 17, 17, "parentheses within each other"),
        ("~beside", 1, "'~' is neither of a name"),
        ("a & !invalid", 5, "all - NAME"),
    ],
)
def test_a_fault_is_said_with_its_place(text: str, at: int, sentence: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Expression.read(text)
    (fault,) = refused.value.faults
    assert f"at {at}:" in fault
    assert sentence in fault


def test_an_expression_is_bounded() -> None:
    most = " | ".join(f"a{n}" for n in range(MOST_NAMES))
    assert len(Expression.read(most).names) == MOST_NAMES
    longest = " - ".join(f"{n:064}" for n in range(MOST_NAMES))
    assert len(longest) <= MOST_TEXT
    Expression.read(longest)
    for text in (f"{most} | b", "a" * (MOST_TEXT + 1), "", "  "):
        with pytest.raises(InvalidInputError):
            Expression.read(text)


@pytest.mark.parametrize("text", ["", "all", "~0123", "old-vip"])
def test_what_is_no_expression_is_stored_as_it_is(text: str) -> None:
    assert Expression.stored(text) == Expression(text, text, (text,))


@pytest.mark.parametrize(
    ("text", "reads"),
    [("a", 100), ("a & b", 20), ("a - b", 200), ("a | b", 110), ("b - a", 20), ("a & b - c", 30)],
)
def test_the_smaller_side_is_what_an_intersection_costs(text: str, reads: int) -> None:
    assert Expression.read(text).reads({"a": 100, "b": 10, "c": 1000}) == reads
