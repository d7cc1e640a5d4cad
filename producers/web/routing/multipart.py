"""Multipart bodies: a part of JSON, then one of rows, read line by line as they come (RFC 7578).

Own code, because aiohttp's reader is for the event loop and of no bound in time, while rows are
read by library code on a thread, through the same lines as every streamed body.
"""

import re
from collections.abc import Iterable, Iterator
from email.message import EmailMessage
from typing import Final, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from producers.web.call import Call
from producers.web.http.problem import ProblemError, of_validation
from producers.web.routing.route import SMALL

ROWS: Final = (
    "CSV with a header that names the columns, openid one of them; or JSON lines; after the spec"
)

Said = TypeVar("Said")

_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_MOST_HEADERS: Final = 10


def boundary_of(content_type: str) -> bytes:
    """Return what stands between the parts.

    Raises:
        ProblemError: the header names none.
    """
    header = EmailMessage()
    try:
        header["Content-Type"] = content_type
        found = header.get_boundary() or ""
    except (ValueError, IndexError, LookupError):
        found = ""
    if not _BOUNDARY.fullmatch(found):
        raise ProblemError("bad-request", "multipart/form-data names no boundary", close=True)
    return found.encode()


class Form:
    """The parts of a body, each read once, in their order.

    Args:
        lines: of the body, without their line feeds.
        boundary: as `boundary_of` gave it.
    """

    def __init__(self, lines: Iterable[bytes], boundary: bytes) -> None:
        self._lines = iter(lines)
        self._next, self._last = b"--" + boundary, b"--" + boundary + b"--"
        self._at = next(self._lines, b"").rstrip()

    def small(self, name: str) -> bytes:
        """Return the whole of a part that is small.

        Raises:
            ProblemError: it is not the next one, or too large.
        """
        read, size = [], 0
        for line in self.lines(name):
            read.append(line)
            size += len(line) + 1
            if size > SMALL:
                detail = f"the part {name} may have up to {SMALL:,} bytes"
                raise ProblemError("too-large", detail, close=True)
        return b"\n".join(read)

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a part; raises as `small`, or when the body ends before the part."""
        if self._at != self._next or self._name() != name:
            raise ProblemError(
                "bad-request",
                f"multipart/form-data: the next part must be {name!r}; first spec, then rows",
                close=True,
            )
        for line in self._lines:
            if line.startswith(self._next) and line.rstrip() in {self._next, self._last}:
                self._at = line.rstrip()
                return
            yield line
        raise ProblemError("bad-request", f"the body ended within the part {name}", close=True)

    def end(self) -> None:
        """Say that no part may follow.

        Raises:
            ProblemError: one does.
        """
        if self._at != self._last:
            raise ProblemError("bad-request", "no part may follow rows", close=True)

    def _name(self) -> str:
        """Read a part's headers; return its name, '' without one."""
        found = ""
        for _, line in zip(range(_MOST_HEADERS), self._lines, strict=False):
            if not line.strip():
                return found
            head, _, value = line.decode("utf-8", "replace").partition(":")
            if head.strip().lower() == "content-disposition":
                named = re.search(r';\s*name="?([^";]*)"?', value)
                found = named[1] if named else ""
        return ""


def read_form(call: Call, model: TypeAdapter[Said]) -> tuple[Said, Iterator[bytes]]:
    """Read the first part of a body, on a thread.

    Returns:
        The part ``spec``, as its model makes it, and the lines of the part ``rows``, to be read
        once.

    Raises:
        ProblemError: it is not what the model takes, or the body has other parts.
    """
    form = Form(call.body, boundary_of(call.request.headers["Content-Type"]))
    try:
        said = model.validate_python(orjson.loads(form.small("spec")), strict=True)
    except orjson.JSONDecodeError as error:
        raise ProblemError("bad-request", f"spec is not JSON: {error}"[:300]) from None
    except ValidationError as error:
        raise of_validation(error, "spec") from None
    except RecursionError:
        raise ProblemError("bad-request", "spec is nested too deeply") from None
    return said, _rows(form)


def _rows(form: Form) -> Iterator[bytes]:
    yield from form.lines("rows")
    form.end()
