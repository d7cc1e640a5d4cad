"""What may be changed in a Lua script.

========== ============================================================
drop       a statement goes: a call, an assignment, a ``return``
guard      a condition always, or never, holds
compare    ``<`` and ``<=``, ``>`` and ``>=``, ``==`` and ``~=`` change places
logic      ``and`` and ``or`` change places
constant   a number below ten is one more, any other one twice as much; true is false
sum        ``+`` and ``-`` change places
bound      min and max, floor and ceil change places
expiry     a ``PX`` or ``EX`` goes, with its time
flag       ``NX``, ``XX``, ``GT``, ``LT`` goes
not        a ``not`` goes
========== ============================================================

What indexes (``KEYS[2]``, ``has[3]``) stays: any test dies of that. So do ``local name = …`` and
powers: ``2 ^ 42`` stands for a bound that nobody meets.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .mutant import Edit, shifted

_TOKEN: Final = re.compile(
    r"""
    (?P<skip>\s+|\#![^\n]*|--\[\[.*?\]\]|--[^\n]*)
    |(?P<text>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|\[\[.*?\]\])
    |(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>==|~=|<=|>=|\.\.\.|\.\.|[^\s\w])
    """,
    re.VERBOSE | re.DOTALL,
)
_SWAPS: Final = {
    "<": ("compare", "<="),
    "<=": ("compare", "<"),
    ">": ("compare", ">="),
    ">=": ("compare", ">"),
    "==": ("compare", "~="),
    "~=": ("compare", "=="),
    "and": ("logic", "or"),
    "or": ("logic", "and"),
    "true": ("constant", "false"),
    "false": ("constant", "true"),
    "min": ("bound", "max"),
    "max": ("bound", "min"),
    "floor": ("bound", "ceil"),
    "ceil": ("bound", "floor"),
}
_BEGINS: Final = frozenset(
    {"break", "do", "else", "elseif", "end", "for", "if", "local"}
    | {"repeat", "return", "until"}
    | {"while"}
)
"""Words with which no expression goes on."""

_KEYWORDS: Final = _BEGINS | {"and", "false", "function", "in", "nil", "not", "or", "then", "true"}

_FLAGS: Final = frozenset({"'NX'", "'XX'", "'GT'", "'LT'"})
_TIMES: Final = frozenset({"'PX'", "'EX'"})


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a script: its kind (text, number, name, sign), itself, and where it stands."""

    kind: str
    word: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.word)

    @property
    def is_operand(self) -> bool:
        """Whether an expression may end with it."""
        if self.kind == "name":
            return self.word not in _KEYWORDS or self.word in {"true", "false", "nil", "end"}
        return self.kind in {"text", "number"} or self.word in {")", "]", "}", "..."}


def edits(text: str) -> Iterator[Edit]:
    """Give each change of a script; not every one can be compiled.

    Args:
        text: the script, or a piece that scripts include.
    """
    tokens = _tokens(text)
    for at, token in enumerate(tokens):
        before = tokens[at - 1] if at else None
        yield from _of_word(tokens, at, token, before)
        if token.word in {"if", "elseif", "while"} and token.kind == "name":
            yield from _guards(tokens, at)
        if _begins_statement(token, before):
            end = _end_of_statement(tokens, at)
            if end is not None:
                yield Edit("drop", token.start, tokens[end].end, "")


def _tokens(text: str) -> list[Token]:
    return [
        Token(match.lastgroup or "", match[0], match.start())
        for match in _TOKEN.finditer(text)
        if match.lastgroup != "skip"
    ]


def _of_word(tokens: list[Token], at: int, token: Token, before: Token | None) -> Iterator[Edit]:
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    if token.kind in {"name", "sign"} and token.word in _SWAPS:
        operator, new = _SWAPS[token.word]
        if operator != "bound" or (before and before.word == "."):
            yield Edit(operator, token.start, token.end, new)
    elif token.word in {"+", "-"} and before and before.is_operand:
        yield Edit("sum", token.start, token.end, "-" if token.word == "+" else "+")
    elif token.word == "not" and after:
        yield Edit("not", token.start, after.start, "")
    elif token.kind == "number":
        around = (before and before.word) or "", (after and after.word) or ""
        if around != ("[", "]") and "^" not in around:
            yield Edit("constant", token.start, token.end, shifted(token.word))
    elif token.word in _FLAGS and before and before.word == ",":
        yield Edit("flag", before.start, token.end, "")
    elif token.word in _TIMES and before and before.word == ",":
        yield Edit("expiry", before.start, tokens[_end_of_argument(tokens, at + 2)].end, "")


def _guards(tokens: list[Token], at: int) -> Iterator[Edit]:
    """Give the two changes of a condition; a loop for ever is none of them."""
    closing = "do" if tokens[at].word == "while" else "then"
    end = next(i for i in range(at, len(tokens)) if tokens[i].word == closing)
    start, stop = tokens[at + 1].start, tokens[end - 1].end
    yield Edit("guard", start, stop, "false")
    if closing == "then":
        yield Edit("guard", start, stop, "true")


def _begins_statement(token: Token, before: Token | None) -> bool:
    if token.kind != "name" or (token.word in _KEYWORDS and token.word != "return"):
        return False
    return before is None or before.is_operand or before.word in {"then", "do", "else", ";"}


def _end_of_statement(tokens: list[Token], at: int) -> int | None:
    """Return its last token; None for what is no statement of its own, or holds a function."""
    depth, sets_or_calls = 0, tokens[at].word == "return"
    for i in range(at, len(tokens)):
        token = tokens[i]
        if token.word == "function":
            return None
        depth += (token.word in "([{") - (token.word in ")]}") if token.kind == "sign" else 0
        if depth < 0:
            return None
        sets_or_calls |= token.word in {"=", "("}
        following = tokens[i + 1] if i + 1 < len(tokens) else None
        if depth == 0 and (token.is_operand or i == at == len(tokens) - 1) and _ends(following):
            return i if sets_or_calls else None
        if token.word == "return" and following and following.word in _BEGINS:
            return i
    return None


def _ends(following: Token | None) -> bool:
    if following is None or following.word == ";":
        return True
    if following.kind == "name":
        return following.word in _BEGINS or following.word not in _KEYWORDS
    return False


def _end_of_argument(tokens: list[Token], at: int) -> int:
    depth = 0
    for i in range(at, len(tokens)):
        word = tokens[i].word if tokens[i].kind == "sign" else ""
        if depth == 0 and word in {",", ")"}:
            return i - 1
        depth += (word in {"(", "[", "{"}) - (word in {")", "]", "}"})
    return len(tokens) - 1
