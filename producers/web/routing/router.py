"""The router: from a request's raw path to a route.

A path is cut at its slashes before anything is decoded, and each part must match its pattern
whole. So ``%2F``, ``%2e%2e``, empty parts and bytes that are no UTF-8 are just parts that match
nothing: no path means another one than it says.

Own code, because aiohttp's router matches first and decodes then: its handlers would be given an
app ``a/b`` for ``a%2Fb``, an audience ``..`` for ``%2e%2e``, and the text ``%FF`` for a byte that
is none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from producers.web.http.problem import ProblemError
from producers.web.routing.route import PARAMETERS, Route

_PATTERNS: Final = {name: re.compile(one.pattern) for name, one in PARAMETERS.items()}


@dataclass
class _Node:
    parts: dict[str, "_Node"] = field(default_factory=dict)
    parameter: str = ""
    below: "_Node | None" = None
    routes: dict[str, Route] = field(default_factory=dict)


class Router:
    """Finds routes. Made once from the table."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for part in route.path.split("/")[1:]:
                node = _child(node, part)
            if route.method in node.routes:
                raise ValueError(f"{route.method} {route.path} stands in the table twice")
            node.routes[route.method] = route

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """Return the route, and the parts of the path by name.

        Args:
            method: as it came.
            raw_path: as it came, undecoded, without the query.

        Raises:
            ProblemError: not found, or another method is needed.
        """
        node: _Node | None = self._root
        values = {}
        first, *parts = raw_path.split("/")
        if first:  # an absolute URL, or *: a proxy's language
            node = None
        for raw in parts:
            if node is None:
                break
            if found := node.parts.get(raw):
                node = found
                continue
            part = _decoded(raw)
            if found := node.parts.get(part):
                node = found
            elif node.below is not None and _PATTERNS[node.parameter].fullmatch(part):
                values[node.parameter] = part
                node = node.below
            else:
                node = None
        if node is None or not node.routes:
            raise ProblemError("not-found", "no such path; /docs shows those that there are")
        route = node.routes.get(method)
        if route is None:
            allowed = ", ".join(sorted(node.routes))
            raise ProblemError(
                "method-not-allowed", f"take {allowed} here", headers={"Allow": allowed}
            )
        return route, values


@lru_cache(4096)
def _decoded(raw: str) -> str:
    """Return a part of a path decoded; '' for what is no text."""
    try:
        return unquote_to_bytes(raw.encode()).decode()
    except UnicodeError:  # lone surrogates stand for bytes that are no UTF-8
        return ""


def _child(node: _Node, part: str) -> _Node:
    if not part.startswith("{"):
        return node.parts.setdefault(part, _Node())
    name = part.strip("{}")
    if node.below is None:
        node.parameter, node.below = name, _Node()
    if node.parameter != name:
        raise ValueError(f"{{{name}}} stands where {{{node.parameter}}} does")
    return node.below
