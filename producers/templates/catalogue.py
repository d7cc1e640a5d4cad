"""The catalogue: an app's templates of one channel, as WeChat listed them last."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import orjson

from producers.templates.template import Field, Template, faults_of
from producers.words import Channel

_NAMED: Final = 5
"""Templates that a fault names of those that there are."""


@dataclass(frozen=True)
class Catalogue:
    """What is known of an app's templates.

    An account without any template can send nothing, and deployments that only play WeChat list
    none and take any: so a list without entries says nothing.

    Attributes:
        app, channel: whose, and of which API.
        templates: template_id → template.
        is_whole: all of them are here; False: there were too many.
        read_at_ms: when WeChat was asked for it, epoch ms by the server's clock; 0: never.
        tried_at_ms: when the last try to read it ended, epoch ms.
        trouble: why the last try gave nothing, or ''.
        next_ms: it is not read anew before that, epoch ms.
        wanted_at_ms: when somebody wanted it last, epoch ms.
        now_ms: when this was looked up, epoch ms.
        read_until_ms: end of the lease of whoever reads it, epoch ms; 0: nobody does.
    """

    app: str
    channel: Channel
    templates: Mapping[str, Template] = field(default_factory=dict)
    is_whole: bool = True
    read_at_ms: int = 0
    tried_at_ms: int = 0
    trouble: str = ""
    next_ms: int = 0
    wanted_at_ms: int = 0
    now_ms: int = 0
    read_until_ms: int = 0

    @property
    def is_being_read(self) -> bool:
        """Whether a worker is reading it, as far as its lease tells."""
        return self.read_until_ms > self.now_ms

    @property
    def is_known(self) -> bool:
        """Whether it says which templates there are."""
        return bool(self.templates) and self.is_whole

    @property
    def age_ms(self) -> int:
        """How old it is; 0 where it was never read."""
        return max(0, self.now_ms - self.read_at_ms) if self.read_at_ms else 0

    @cached_property
    def long_term(self) -> frozenset[str]:
        """The templates of which one accept allows many messages."""
        return frozenset(one.template_id for one in self.templates.values() if one.is_long_term)

    def lacks(self, template_id: str) -> bool:
        """Say whether there is no such template; False while that is not known."""
        return self.is_known and template_id not in self.templates

    def faults(
        self, template_id: str, data: Mapping[str, str], *, values: bool = True
    ) -> list[str]:
        """Return what is wrong with a message of a template; none where nothing is known.

        Args:
            template_id: the template.
            data: key → value.
            values: as for `faults_of`.
        """
        if self.lacks(template_id):
            return [self._unknown(template_id)]
        template = self.templates.get(template_id)
        return [] if template is None else faults_of(template, data, values=values)

    def _unknown(self, template_id: str) -> str:
        some = sorted(self.templates.values(), key=lambda one: one.template_id)[:_NAMED]
        named = "; ".join(f"{one.name} ({one.has})" if one.fields else one.name for one in some)
        more = len(self.templates) - len(some)
        rest = f"; and {more:,} more (wxbroadcast templates --app {self.app})" if more else ""
        return (
            f"template_id {template_id[:128]!r}: app {self.app} has no such template on channel "
            f"{self.channel}, says WeChat's list of {self.age_ms // 1000:,} s ago; it has "
            f"{named}{rest}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return {
            "app": self.app,
            "channel": self.channel.value,
            "read_at_ms": self.read_at_ms,
            "is_whole": self.is_whole,
            "trouble": self.trouble,
            "templates": [one.as_dict() for one in self.templates.values()],
        }


def to_json(templates: Iterable[Template], *, is_whole: bool) -> str:
    """Return templates as they are stored."""
    rows = [one.as_dict() for one in templates]
    return orjson.dumps({"whole": is_whole, "templates": rows}).decode()


def from_json(text: str) -> tuple[dict[str, Template], bool]:
    """Read stored templates, and whether they are all; what another version added is left out.

    Raises:
        ValueError: it is none of ours.
    """
    try:
        stored = orjson.loads(text)
        templates = [
            Template(
                one["template_id"],
                one.get("title", ""),
                one.get("kind", ""),
                tuple(
                    Field(
                        row["key"],
                        row.get("type", ""),
                        row.get("label", ""),
                        row.get("example", ""),
                        tuple(row.get("values", ())),
                    )
                    for row in one.get("fields", ())
                ),
            )
            for one in stored["templates"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no stored list of templates: {error}") from error
    return {one.template_id: one for one in templates}, bool(stored.get("whole"))
