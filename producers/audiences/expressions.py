"""Expressions: whom an audience is made of others: ``vip & active - churned``.

``|`` is who is in one or the other, ``&`` who is in both, ``-`` who is in the first and not in the
second; parentheses group; ``all`` is everybody who ever gave a permit. (Not ``+``: in a URL that is
a blank.)

``&`` and ``-`` stand on one level and are read from the left, so that each narrows what stands
before it: ``vip & active - churned`` are the active VIPs without the churned. ``|`` beside one of
them is refused without parentheses: ``vip | new - churned`` may be read in two ways, and one of
them sends to people who were to be left out.

A name may contain ``-``, as ``old-vip``: after a letter it belongs to the name, so put a blank
before the operator. Whatever was a name before there were expressions is the same name now.

Nothing is made of an expression but an answer for one bucket at a time (bucket.lua), from the sets
as they are at that moment: an audience that is replaced or deleted meanwhile is met bucket by
bucket as a single one is.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self, TypeVar

from producers.errors import InvalidInputError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MOST_NAMES: Final = 16
"""Names in one expression: a bucket of a hundred members in each is answered in half a
millisecond. bucket.lua holds the same bound."""
MOST_TEXT: Final = 1200
"""Characters of an expression: of so many names with their operators."""
_DEEPEST: Final = 16
"""Parentheses within parentheses."""

_TOKEN: Final = re.compile(r"\s*(?:([A-Za-z0-9][A-Za-z0-9_.-]*)|([&|()-]))")
_BOTH: Final = "write (a | b) - c or a | (b - c), whichever is meant"
_HINTS: Final = {
    "+": "; `|` is the union",
    ",": "; `|` is the union",
    "!": "; for all but some write all - NAME",
    "（": "; take ( and )",
    "）": "; take ( and )",
    "｜": "; take |",
    "＆": "; take &",
    "－": "; take - with a blank before it",
    "−": "; take - with a blank before it",
}

Node = str | tuple[str, "Node", "Node"]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Expression:
    """Whom a broadcast is for, as names of audiences and what is done with them.

    Attributes:
        text: as people write it, with one blank on each side of an operator.
        postfix: as Redis reads it: names and operators by blanks, each operator after the two that
            it is for: ``vip active & churned -``. A single name is itself.
        names: each once, in order.
    """

    text: str
    postfix: str
    names: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read an expression, or a single name.

        Raises:
            InvalidInputError: it is none; the sentence says what is wrong at which character.
        """
        if len(text) > MOST_TEXT:
            raise InvalidInputError([f"audience: {len(text):,} characters; at most {MOST_TEXT:,}"])
        node = _Reader(text).whole()
        postfix = " ".join(_postfix(node))
        names = sum(word not in _OPERATORS for word in postfix.split(" "))
        if names > MOST_NAMES:
            raise InvalidInputError(
                [f"audience: {names} names, at most {MOST_NAMES}; import one that holds more"]
            )
        return cls(_written(node), postfix, names_of(postfix))

    @property
    def is_name(self) -> bool:
        """Whether it is a single name."""
        return self.postfix == self.text

    @classmethod
    def stored(cls, text: str) -> Self:
        """Return what a stored spec names: an expression, an audience, what is beside, or ''."""
        return cls.read(text) if _SIGNS.search(text) else cls(text, text, (text,))

    def holds(self, member: Mapping[str, bool]) -> bool:
        """Say whether somebody belongs to it, by the audiences that he is a member of."""
        return evaluate(self.postfix, lambda name: bool(member[name]), _LOGIC)

    def reads(self, sizes: Mapping[str, int]) -> int:
        """Return how many members Redis reads or looks up for all of it, at the most.

        Args:
            sizes: name → members.
        """
        whole = evaluate(
            self.postfix,
            lambda name: _Cost(sizes[name], sizes[name], 1),
            {"|": _Cost.of_union, "&": _Cost.of_both, "-": _Cost.without},
        )
        return whole.reads


_OPERATORS: Final = frozenset("|&-")
_LOGIC: Final[Mapping[str, Callable[[bool, bool], bool]]] = {
    "|": lambda left, right: left or right,
    "&": lambda left, right: left and right,
    "-": lambda left, right: left and not right,
}
_SIGNS: Final = re.compile(r"[ |&()]")
"""What an expression has and no name."""


class _Cost(NamedTuple):
    """What a part of an expression costs, as bucket.lua reads it.

    Attributes:
        most: members that it may have.
        reads: members read and looked up for them.
        names: how many it has; each is asked about whoever is looked up in the part.
    """

    most: int
    reads: int
    names: int

    def of_union(self, other: "_Cost") -> "_Cost":
        most, reads = self.most + other.most, self.reads + other.reads
        return _Cost(most, reads, self.names + other.names)

    def of_both(self, other: "_Cost") -> "_Cost":
        few, many = sorted((self, other))
        return few.without(many)

    def without(self, other: "_Cost") -> "_Cost":
        reads = self.reads + self.most * other.names
        return _Cost(self.most, reads, self.names + other.names)


def evaluate(
    postfix: str,
    of_name: Callable[[str], Value],
    operators: Mapping[str, Callable[[Value, Value], Value]],
) -> Value:
    """Return what an expression in postfix order comes to."""
    stack: list[Value] = []
    for word in postfix.split(" "):
        if word in operators and len(stack) > 1:
            right = stack.pop()
            stack.append(operators[word](stack.pop(), right))
        else:
            stack.append(of_name(word))
    return stack[-1]


def names_of(postfix: str) -> tuple[str, ...]:
    """Return the names of an expression in postfix order, each once."""
    words = postfix.split(" ")
    return tuple(dict.fromkeys(word for word in words if word not in _OPERATORS))


class _Reader:
    """Reads one text from the left."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0

    def whole(self) -> Node:
        node = self._chain(0)
        sign, place = self._tokens[self._at]
        if sign == ")":
            raise self._wrong(place, "this ) closes nothing")
        if sign:
            raise self._wrong(place, f"put & | or - before {sign!r}")
        return node

    def _chain(self, depth: int) -> Node:
        node = self._term(depth)
        first = ""
        while (sign := self._tokens[self._at][0]) in _OPERATORS:
            place = self._tokens[self._at][1]
            if first and (sign == "|") != (first == "|"):
                both = f"`{first}` and `{sign}` can be read in two ways: {_BOTH}"
                raise self._wrong(place, both)
            first = first or sign
            self._at += 1
            node = (sign, node, self._term(depth))
        return node

    def _term(self, depth: int) -> Node:
        sign, place = self._tokens[self._at]
        before = self._text[: place - 1].rstrip()
        if not sign and not before:
            raise InvalidInputError(["audience: give a name, such as all"])
        if not sign or sign == ")" or sign in _OPERATORS:
            after = f" after {before[-1]!r}" if before else ""
            raise self._wrong(place, f"a name or ( is missing{after}")
        self._at += 1
        if sign != "(":
            if not NAME.fullmatch(sign):
                raise self._wrong(place, "a name has at most 64 characters")
            return sign
        if depth >= _DEEPEST:
            raise self._wrong(place, f"more than {_DEEPEST} parentheses within each other")
        node = self._chain(depth + 1)
        closing, end = self._tokens[self._at]
        if closing != ")":
            raise self._wrong(end, f"the ( at {place} is not closed")
        self._at += 1
        return node

    def _wrong(self, place: int, sentence: str) -> InvalidInputError:
        return _fault(self._text, place, sentence)


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield (token, its place from 1), and '' at the end."""
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if not found:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            sign = text[place]
            raise _fault(
                text,
                place + 1,
                f"{sign!r} is neither of a name (letters, digits, _ . -) nor one of "
                f"& | - ( ){_HINTS.get(sign, '')}",
            )
        yield found[1] or found[2], found.start(1 if found[1] else 2) + 1
        at = found.end()
    yield "", len(text) + 1


def _fault(text: str, place: int, sentence: str) -> InvalidInputError:
    return InvalidInputError([f"audience {text!r}, at {place}: {sentence}"])


def _postfix(node: Node) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    else:
        operator, left, right = node
        yield from _postfix(left)
        yield from _postfix(right)
        yield operator


def _written(node: Node, beside: str = "", *, right: bool = False) -> str:
    """Return a node as people write it, in parentheses where it needs them beside an operator."""
    if isinstance(node, str):
        return node
    operator, first, second = node
    text = f"{_written(first, operator)} {operator} {_written(second, operator, right=True)}"
    plain = not beside or (not right and (operator == "|") == (beside == "|"))
    return text if plain else f"({text})"
