"""WeChat's field rules as data: what a broadcast's data, page and template_id may hold.

A broadcast is checked whole before anything is stored, so that a value that WeChat would refuse
for every recipient costs one clear error instead of a thousand 47003 answers. Nothing here touches
Redis or WeChat.

The rules are those of the documented table, read leniently: what the table forbids is refused,
what it leaves open is accepted, because WeChat itself has the last word (a phrase of five Han
characters and a date with leading zeros were both seen refused, though the table allows them).
The list of an ``enum_string`` belongs to the template and is not known here.

Sources: WeChat docs, subscribe-message sendMessage, the table of parameter value limits, for the
types; WeChat docs of 2018, templateMessage.send, for ``keywordN`` and ``emphasis_keyword``. The
docs do not say what a "character" is: UTF-16 units are counted, the strictest reading (an emoji is
two).
"""

from producers.fields.data import parse_data
from producers.fields.placeholders import check_templates, columns_of, filled, filled_page
from producers.fields.rules import (
    FieldFault,
    check,
    check_emphasis_keyword,
    check_page,
    check_template_id,
)
from producers.fields.types import FIELD_TYPES, MAX_VALUE_UNITS, FieldType, utf16_units

__all__ = [
    "FIELD_TYPES",
    "MAX_VALUE_UNITS",
    "FieldFault",
    "FieldType",
    "check",
    "check_emphasis_keyword",
    "check_page",
    "check_template_id",
    "check_templates",
    "columns_of",
    "filled",
    "filled_page",
    "parse_data",
    "utf16_units",
]
