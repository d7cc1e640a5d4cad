"""``wxbroadcast settings``: every setting there is, read off the fields themselves."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

import typer

from producers.cli.options import AsJson
from producers.cli.session import guarded, print_json, print_table, table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_HEADS: Final = ("type, unit, range", "default", "meaning")
_APP_PREFIX: Final = "WXB_APPS__ALIAS__"
_SPANS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_SIZES: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("bytes", 1))
_TYPES: Final = {
    "str": "text",
    "SecretStr": "text, secret",
    "AnyHttpUrl": "URL",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "timedelta": "duration",
    "tuple": "JSON list",
    "dict": "JSON object",
    "Path": "path",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One setting.

    Attributes:
        name: of its field; in lower case, as in the JSON of ``WXB_APPS``.
        variable: that sets it.
        type: in words.
        unit: of the number that is written, '' when it has none.
        least: the smallest value there may be, None without one; `above` when it is excluded.
        most: the largest one.
        default: as it is written, None where there is none.
        required: whether it must be set.
        meaning: the field's description.
    """

    name: str
    variable: str
    type: str
    unit: str
    least: float | None
    above: bool
    most: float | None
    default: Any
    required: bool
    meaning: str


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, as it stands in the README.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print every setting: its variable, type, unit, range, default and meaning.

    Nothing needs to be set for it. The second table is of the fields of one app within WXB_APPS.
    """
    with guarded(as_json=as_json):
        from producers.errors import InvalidInputError
        from producers.settings import AppSettings, Settings

        if markdown and as_json:
            raise InvalidInputError(["--markdown or --json: one of them"])
        whole = [_row(name, "WXB_", field) for name, field in Settings.model_fields.items()]
        of_app = [
            _row(name, _APP_PREFIX, field) for name, field in AppSettings.model_fields.items()
        ]
        if as_json:
            print_json({"settings": [asdict(r) for r in whole], "app": [asdict(r) for r in of_app]})
        elif markdown:
            typer.echo("\n".join(_markdown("variable", (_cells(r.variable, r) for r in whole))))
            typer.echo()
            typer.echo("\n".join(_markdown("field of an app", (_cells(r.name, r) for r in of_app))))
        else:
            _print("variable", (_cells(row.variable, row) for row in whole))
            _print(f"field of an app: {_APP_PREFIX}…", (_cells(row.name, row) for row in of_app))


def _row(name: str, prefix: str, field: "FieldInfo") -> Row:
    """Read a setting off its field."""
    from producers.settings import Unit

    units = [one.name for one in field.metadata if isinstance(one, Unit)]
    bounds = {
        bound: _written(getattr(one, bound))
        for one in field.metadata
        for bound in ("ge", "gt", "le")
        if hasattr(one, bound)
    }
    required = field.is_required() or field.default_factory not in (None, dict)
    return Row(
        name=name,
        variable=f"{prefix}{name.upper()}",
        type=_in_words(field.annotation),
        unit=units[0] if units else "",
        least=bounds.get("ge", bounds.get("gt")),
        above="gt" in bounds,
        most=bounds.get("le"),
        default=None if required else _written(field.get_default(call_default_factory=True)),
        required=required,
        meaning=field.description or "",
    )


def _in_words(annotation: Any) -> str:
    """Name a type, as somebody who sets a variable needs to know it."""
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if origin in (Union, UnionType):
        return " or ".join(_in_words(one) for one in get_args(annotation) if one is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(one.value for one in annotation)
    return _TYPES[(origin or annotation).__name__]


def _written(value: Any) -> Any:
    """Return a value as it is written in the environment or in JSON."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return tuple(_written(one) for one in value)
    if isinstance(value, dict):
        return {str(name): _written(one) for name, one in value.items()}
    return value if value is None or isinstance(value, int | float) else str(value).rstrip("/")


def _cells(name: str, row: Row) -> tuple[str, str, str, str]:
    """Return a setting as the cells of a table."""
    return name, f"{row.unit or row.type}{_range(row)}", _default(row), row.meaning


def _range(row: Row) -> str:
    """Return which numbers there may be."""
    if row.least is None:
        return ""
    if row.most is not None:
        return f", {_grouped(row.least)} to {_grouped(row.most)}"
    if row.above:
        return f", more than {row.least:.0f}"
    return f", {_grouped(row.least)} or more" if row.least else ""


def _default(row: Row) -> str:
    """Return a default as people say it."""
    value = row.default
    if row.required:
        return "must be set"
    if value in (None, (), {}):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if row.unit == "seconds":
        return next(
            _many(value / span, of) for of, span in _SPANS if not value % span or of == "second"
        )
    if row.unit == "bytes":
        return next(f"{value // size:,} {of}" for of, size in _SIZES if not value % size)
    return str(value) if isinstance(value, str) else _grouped(value)


def _grouped(number: float) -> str:
    """Return a number with its thousands apart where there are many digits."""
    return f"{number:,}" if number >= 10_000 else str(number)


def _many(count: float, noun: str) -> str:
    return f"{count:g} {noun}" if count == 1 else f"{count:g} {noun}s"


def _markdown(first: str, rows: Iterator[tuple[str, str, str, str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield f"| {' | '.join((first, *_HEADS))} |"
    yield f"|{'---|' * (1 + len(_HEADS))}"
    for name, *cells in rows:
        yield f"| `{name}` | {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _print(first: str, rows: Iterator[tuple[str, str, str, str]]) -> None:
    """Print a table for people."""
    shown = table(first, *_HEADS)
    for row in rows:
        shown.add_row(*row)
    print_table(shown)
