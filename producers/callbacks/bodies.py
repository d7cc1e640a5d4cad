"""Bodies of callbacks: JSON or XML, told apart by their first character, read into one shape.

In that shape an XML element with children is a dict, one that is repeated a list, and any other a
text, as JSON would have it. Entities and document types are refused; nothing is ever fetched.
"""

import re
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError

import orjson
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from producers.errors import InvalidInputError

MAX_BYTES: Final = 262_144
"""Bytes of one push: the longest text message in compatible mode takes a tenth of it."""

_DEPTH: Final = 4
"""Levels of elements that are read; the subscribe events have three."""

_COMMAS: Final = re.compile(rb'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)
"""Texts, and the commas before an end that the samples of WeChat's own pages have.

A text without an end is one up to the body's end: so no byte is looked at twice.
"""


def parse(body: bytes) -> dict[str, Any]:
    """Read a body.

    Raises:
        InvalidInputError: too long, or neither a JSON object nor an ``<xml>``.
    """
    if len(body) > MAX_BYTES:
        raise InvalidInputError([f"the body has {len(body):,} bytes; accepted: {MAX_BYTES:,}"])
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    found = _from_xml(body) if body.startswith(b"<") else _from_json(body)
    if not isinstance(found, dict):
        raise InvalidInputError(["the body is neither a JSON object nor <xml>"])
    return found


def _from_json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return orjson.loads(_COMMAS.sub(lambda match: match[1] or b"", body))
    except orjson.JSONDecodeError:
        return None


def _from_xml(body: bytes) -> object:
    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):  # incl. odd encodings
        return None
    return _value(root, _DEPTH) if root.tag == "xml" else None


def _value(element: Element, depth: int) -> Any:
    if not len(element):
        return (element.text or "").strip()
    fields: dict[str, Any] = {}
    for child in element if depth else ():
        value = _value(child, depth - 1)
        known = fields.get(child.tag)
        if known is None:
            fields[child.tag] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            fields[child.tag] = [known, value]
    return fields
