"""A template: which fields a message of it has, and whether some data fit it.

Nothing here touches Redis or WeChat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

ONE_OFF: Final = "one_off"
LONG_TERM: Final = "long_term"

_SHOWN: Final = 40
"""Characters of a value, or of a title, that a fault repeats."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a template.

    Attributes:
        key: what data call it, such as ``thing1``.
        type: the key without its number: ``thing`` (see `producers.fields`), or ``keyword``.
        label: what stands before it in the message, such as ``会议地点``.
        example: a value, as WeChat shows one; '' where it shows none.
        values: the only ones that it may have; none: any that its type allows.
    """

    key: str
    type: str
    label: str = ""
    example: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """One template of an app.

    Attributes:
        template_id: what a send names.
        title: its title.
        kind: ``one_off``: an accept is one message; ``long_term``: many; '' where WeChat does not
            say (the template channel has no accepts).
        fields: in the order of the message; none: not known, any data may fit.
    """

    template_id: str
    title: str = ""
    kind: str = ""
    fields: tuple[Field, ...] = ()

    @cached_property
    def keys(self) -> frozenset[str]:
        """The keys that its data have; none: not known."""
        return frozenset(field.key for field in self.fields)

    @cached_property
    def listed(self) -> Mapping[str, frozenset[str]]:
        """Key → the only values that it may have, of the fields that have such."""
        return {field.key: frozenset(field.values) for field in self.fields if field.values}

    @property
    def is_long_term(self) -> bool:
        """Whether one accept of it allows many messages."""
        return self.kind == LONG_TERM

    @property
    def name(self) -> str:
        """How a fault calls it: its id and title."""
        return f"{self.template_id} {self.title[:_SHOWN]}".rstrip()

    @property
    def has(self) -> str:
        """Its fields in words: ``thing1 会议地点, date2 会议时间``."""
        return ", ".join(f"{one.key} {one.label[:_SHOWN]}".rstrip() for one in self.fields)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return {
            "template_id": self.template_id,
            "title": self.title,
            "kind": self.kind,
            "fields": [
                {
                    "key": one.key,
                    "type": one.type,
                    "label": one.label,
                    "example": one.example,
                    "values": list(one.values),
                }
                for one in self.fields
            ],
        }


def faults_of(template: Template, data: Mapping[str, str], *, values: bool = True) -> list[str]:
    """Return what is wrong with data for a template, each in one sentence; none when they fit.

    Whether a value fits its field's type is not looked at (see `producers.fields`). It is cheap:
    about a microsecond for data that fit.

    Args:
        template: whose fields.
        data: key → value, flat.
        values: whether the values are those that are sent; False: they are yet to be filled in, so
            that only the keys are looked at.
    """
    faults = []
    keys = template.keys
    if keys and data.keys() != keys:
        for field in template.fields:
            if field.key not in data:
                labelled = f" ({field.label[:_SHOWN]})" if field.label else ""
                faults.append(
                    f"data lacks {field.key}{labelled}; template {template.name} has {template.has}"
                )
        faults += [
            f"data has {key[:_SHOWN]}, which template {template.name} has not; it has "
            f"{template.has}"
            for key in data
            if key not in keys
        ]
    if values:
        for key, listed in template.listed.items():
            value = data.get(key)
            if value is not None and value not in listed:
                only = ", ".join(next(one.values for one in template.fields if one.key == key))
                faults.append(f"{key} is {value[:_SHOWN]!r}; template {template.name} has {only}")
    return faults
