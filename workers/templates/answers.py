r"""Answers: what WeChat says of an app's templates, made into templates; bounded, whatever comes.

What is too long is cut, what has another shape is left out, and what then says less than WeChat
did is marked: a list that is not whole lets no template be called unknown, and a template whose
fields are not all understood lets any data pass.

Sources: WeChat docs, subscribe-message gettemplate (priTmplId, title, content, example, type 2 or
3, keywordEnumValueList) and the 2018 templateMessage.getTemplateList (template_id, title, content,
example); ``content`` is like ``"会议时间:{{date2.DATA}}\n会议地点:{{thing1.DATA}}\n"``, and
``example`` the same lines, filled in.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from producers.openid import TEMPLATE_ID
from producers.templates.catalogue import to_json
from producers.templates.template import LONG_TERM, ONE_OFF, Field, Template
from producers.words import Channel

MOST: Final = 500
"""Templates of one list; accounts are said to have 25 to 50 (WeChat names no number: 200012)."""

MOST_BYTES: Final = 262_144
"""Of a list as it is stored."""

_CONTENT: Final = 4_000
_TITLE: Final = 100
_LABEL: Final = 50
_FIELDS: Final = 30
_VALUES: Final = 200
_VALUE: Final = 100

# a key begins with no blank: each stretch of blanks has one reading, however long it is
_KEY: Final = re.compile(r"\{\{\s*(?P<key>[^{}\s][^{}]{0,79}?)\.DATA\s*\}\}")
_GOOD_KEY: Final = re.compile(r"(?P<type>[a-z_]{1,40})[0-9]{1,6}")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KINDS: Final = {2: ONE_OFF, 3: LONG_TERM}


def stored(templates: Iterable[Template], *, is_whole: bool) -> str:
    """Return a list as it is stored, at most `MOST_BYTES` of it."""
    kept = list(templates)
    text = to_json(kept, is_whole=is_whole)
    while len(text.encode()) > MOST_BYTES:
        del kept[len(kept) // 2 :]
        text = to_json(kept, is_whole=False)
    return text


def templates_in(channel: Channel, answer: Mapping[str, Any]) -> tuple[list[Template], bool]:
    """Return the templates of one answer without an errcode, and whether they are all of it.

    Args:
        channel: whose list it is.
        answer: the JSON object.

    Raises:
        ValueError: it is no list of templates.
    """
    rows = answer.get("data" if channel is Channel.SUBSCRIBE else "list")
    if not isinstance(rows, list):
        raise ValueError("no list of templates")  # noqa: TRY004 - the answer's fault
    found = [_template(channel, row) for row in rows[:MOST]]
    kept = [one for one in found if one is not None]
    return kept, len(kept) == len(rows)


def _template(channel: Channel, row: object) -> Template | None:
    if not isinstance(row, dict):
        return None
    name = row.get("priTmplId" if channel is Channel.SUBSCRIBE else "template_id")
    if not isinstance(name, str) or not TEMPLATE_ID.fullmatch(name):
        return None
    kind = row.get("type") if channel is Channel.SUBSCRIBE else None
    return Template(
        name,
        _text(row.get("title"), _TITLE),
        _KINDS.get(kind, "") if isinstance(kind, int) else "",
        _fields(row.get("content"), row.get("example"), row.get("keywordEnumValueList")),
    )


def _text(value: object, most: int) -> str:
    return _UNSEEN.sub(" ", value)[:most].strip() if isinstance(value, str) else ""


def _fields(content: object, example: object, listed: object) -> tuple[Field, ...]:
    """Return the fields of a template; none where they are not all understood."""
    if not isinstance(content, str) or len(content) > _CONTENT:
        return ()
    examples = example[: 2 * _CONTENT].split("\n") if isinstance(example, str) else []
    values = _values(listed)
    fields: dict[str, Field] = {}
    for number, line in enumerate(content.split("\n")):
        for place, found in enumerate(_KEY.finditer(line)):
            good = _GOOD_KEY.fullmatch(found["key"])
            if good is None or len(fields) >= _FIELDS:
                return ()
            before = line[: found.start()] if not place else ""
            shown = examples[number] if number < len(examples) and not place else ""
            after = line[found.end() :]
            fields[found["key"]] = Field(
                found["key"],
                good["type"],
                _text(before.rstrip(" :：{"), _LABEL),
                _text(_between(shown, before, after), _VALUE),
                values.get(found["key"], ()),
            )
    return tuple(fields.values())


def _between(shown: str, before: str, after: str) -> str:
    """Return what a line's example has in the field's place; '' where it is another line."""
    if not shown.startswith(before) or _KEY.search(after) or not shown.endswith(after):
        return ""
    return shown[len(before) : len(shown) - len(after)]


def _values(listed: object) -> dict[str, tuple[str, ...]]:
    """Return key → the values that it may have; one that is not understood may have any."""
    found: dict[str, tuple[str, ...]] = {}
    for row in listed[:_FIELDS] if isinstance(listed, list) else ():
        code = row.get("keywordCode") if isinstance(row, dict) else None
        values = row.get("enumValueList") if isinstance(row, dict) else None
        if not isinstance(code, str) or not isinstance(values, list):
            continue
        if len(values) <= _VALUES and all(
            isinstance(one, str) and len(one) <= _VALUE and not _UNSEEN.search(one)
            for one in values
        ):
            found[code.removesuffix(".DATA")] = tuple(values)
    return found
