"""The page: a document, its scripts and its style, all from here; and what keeps it alive."""

from functools import cache
from importlib.resources import files
from typing import Final

from producers.access.api_keys import Scope
from producers.web.call import Call
from producers.web.console.sessions import CHAPTER
from producers.web.http.answer import Answer
from producers.web.http.media import EVENTS, HTML
from producers.web.routing.route import Handler, Open, Reply, Route

_SCRIPT: Final = "text/javascript"
_STYLE: Final = "text/css"

_ASSETS: Final = (
    ("console.js", _SCRIPT, "Its script"),
    ("parts.js", _SCRIPT, "What its views are made of"),
    ("composer.js", _SCRIPT, "Where a broadcast is composed"),
    ("looks.js", _SCRIPT, "Looks at a user, at an app"),
    ("trouble.js", _SCRIPT, "What stands still, or waits for a word"),
    ("files.js", _SCRIPT, "What a file of recipients is"),
    ("words.js", _SCRIPT, "Its words, in both languages"),
    ("console.css", _STYLE, "Its style"),
)
"""Name, media type, what it is."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def _asset(name: str) -> bytes:
    return files(__package__).joinpath("assets", name).read_bytes()


def _shown(name: str, media: str) -> Answer:
    headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
    return Answer(body=_asset(name), media=f"{media}; charset=utf-8", headers=headers)


async def show_console(call: Call) -> Answer:  # noqa: ARG001 - a handler's signature
    """Show the live page; whoever is not signed in signs in there."""
    return _shown("console.html", HTML)


def _shower(name: str, media: str) -> Handler:
    async def show(call: Call) -> Answer:  # noqa: ARG001
        return _shown(name, media)

    show.__name__ = f"show_console_{name.replace('.', '_')}"
    return show


async def watch(call: Call) -> Answer:
    """Stream the board, whenever it has changed."""
    key = call.key
    assert key is not None  # noqa: S101 - the route asks for a scope
    guard, session = call.services.guard, "" if call.bearer else call.session
    parts = await call.services.watch.events(key, lambda: guard.has_ended(key, session))
    return Answer(parts=parts, media=EVENTS)


def _document(path: str, handler: Handler, summary: str, media: str) -> Route:
    return Route(
        "GET",
        path,
        handler,
        Open.ALL,
        summary,
        CHAPTER,
        {200: Reply(summary, media=(media,))},
    )


ROUTES: Final[tuple[Route, ...]] = (
    _document("/", show_console, "The live page for people", HTML),
    *(
        _document(f"/console/{name}", _shower(name, media), summary, media)
        for name, media, summary in _ASSETS
    ),
    Route(
        "GET",
        "/console/events",
        watch,
        Scope.READ,
        "What happens, as server-sent events",
        CHAPTER,
        {200: Reply("`board` events, and `away` while Redis does not answer", media=(EVENTS,))},
        text="Of the apps that the key is for: broadcasts, apps, workers, as `wxbroadcast top "
        "--json` prints them, whenever they have changed; a second apart at the least.",
    ),
)
