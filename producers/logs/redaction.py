"""Redaction: a text without the secrets and permits in it, before anybody logs or prints it.

What libraries and WeChat say is not ours: URLs with an access token, bodies, headers, in JSON
within JSON, percent-encoded within a URL. `redacted` hides what follows the name of a secret in
each of these, and, whatever stands before them, the passwords of URLs, phones' tickets, API keys
and bearers. It hides rather too much than too little, and costs time in proportion to the text.

Call it before a text is cut: a cut may take the name away and leave the value.

Own code, because scrubbers of libraries go by the names of fields, not by names within a text.
"""

import re
from typing import Final

_MOST: Final = 65_536
"""Characters that are looked at; the middle of a longer text is left out."""

_NAME: Final = (
    "(?:token|secret|pass(?:word|wd|phrase)|authorization|ticket|aes_?key|api[_-]?key"
    "|session(?:_|-|%5f)?key|js(?:_|-|%5f)?code|form(?:_|-|%5f)?id|prepay(?:_|-|%5f)?id)"
)
"""How a name ends: what stands before it (`access_`, `App`) does not matter."""

_QUOTE: Final = r"\\{0,8}(?:[\"']|u002[27]|&(?:quot|\#34|\#39|\#x27);)"
"""Of JSON, of JSON within JSON, of Python, of HTML."""

_PERCENT: Final = "%(?:25){0,3}"
"""A percent sign, which percent-encoding encodes again and again."""

_PERCENT_QUOTE: Final = f"(?:{_PERCENT}5c){{0,8}}{_PERCENT}2[27]"

_SECRET: Final = re.compile(
    rf"""
    (?P<named> {_NAME}
        (?: (?:{_QUOTE})? \s{{0,8}} (?: [=:] | \\{{1,8}}u003[ad] | ,(?=\s{{0,8}}b?{_QUOTE}) )
            \s{{0,8}} [\[(]? (?:b(?=["']))?
        |   (?:{_PERCENT_QUOTE})? (?:{_PERCENT}2[0b]|\+){{0,2}} {_PERCENT}(?:3[ad]|2c)
            (?:{_PERCENT}2[0b]|\+){{0,2}} (?:{_PERCENT}(?:5b|28))? b? (?:{_PERCENT_QUOTE})?
            (?P<percent>)
        |   > (?:<!\[CDATA\[)?
        )
    )
    (?: (?P<open>{_QUOTE}) (?: (?! (?<!\\)(?P=open) ). )+
    |   (?(percent) (?: (?! {_PERCENT}(?:2[267c]|5c|7d) ) [^\s&"'<>\\] )+
        |           (?:(?:bearer|basic)\s{{1,8}})? [^\s&"'<>\\]+ )
    )
    | (?P<url> ://[^/@\s:"'\\]*: ) [^/\s"'\\]* (?=@)
    | (?P<key> wxb_[0-9a-f]{{12}}_ ) [\w-]+
    | (?P<ticket> \bv1\.[a-z0-9_-]{{1,32}}\. ) [\w-]{{1,64}}\.[0-9]{{1,12}}\.[\w-]+
    | (?P<bearer> bearer\s{{1,8}} ) [\w.~+/=-]{{8,}}
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII | re.DOTALL,
)

_SHOWN: Final = r"\g<named>\g<open>\g<url>\g<key>\g<ticket>\g<bearer>…"

_ANY: Final = re.compile(r"[=:%>,\\]|wxb_|v1\.|bearer", re.IGNORECASE)
"""A text without any of these holds no secret that could be recognised."""

_END: Final = re.compile(r"[\s\"'&,]")


def redacted(text: str) -> str:
    """Return a text with ``…`` in place of each secret and permit that it names.

    Of a text beyond 65,536 characters the first and the last half of that stay.
    """
    if len(text) > _MOST:
        text = _shortened(text)
    return _SECRET.sub(_SHOWN, text) if _ANY.search(text) else text


def _shortened(text: str) -> str:
    """Leave out the middle, from the end of a word to the beginning of one.

    So no half of a value stays without the name before it, or the ``@`` behind it.
    """
    head, tail = text[: _MOST // 2], text[-_MOST // 2 :]
    last = max(map(head.rfind, (" ", "\n", '"', "'", "&", ",")))
    first = _END.search(tail)
    return f"{head[: last + 1]} … {tail[first.start() :] if first else ''}"
