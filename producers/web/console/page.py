"""The page: a document, its scripts and its style, all from here; and what keeps it alive."""

from functools import cache
from importlib.resources import files
from typing import Final

from producers.access.api_keys import Scope
from producers.web.call import Call
from producers.web.console.sessions import CHAPTER
from producers.web.http.answer import Answer
from producers.web.http.media import EVENTS, HTML
from producers.web.routing.route import Open, Reply, Route

_SCRIPT: Final = "text/javascript"
_STYLE: Final = "text/css"

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


async def show_console_script(call: Call) -> Answer:  # noqa: ARG001
    """Show its script."""
    return _shown("console.js", _SCRIPT)


async def show_console_words(call: Call) -> Answer:  # noqa: ARG001
    """Show its words, in both languages."""
    return _shown("words.js", _SCRIPT)


async def show_console_style(call: Call) -> Answer:  # noqa: ARG001
    """Show its style."""
    return _shown("console.css", _STYLE)


async def watch(call: Call) -> Answer:
    """Stream the board, whenever it has changed."""
    key = call.key
    assert key is not None  # noqa: S101 - the route asks for a scope
    guard, session = call.services.guard, "" if call.bearer else call.session
    parts = await call.services.watch.events(key, lambda: guard.has_ended(key, session))
    return Answer(parts=parts, media=EVENTS)


def _document(path: str, handler: object, summary: str, media: str) -> Route:
    return Route(
        "GET",
        path,
        handler,  # type: ignore[arg-type]
        Open.ALL,
        summary,
        CHAPTER,
        {200: Reply(summary, media=(media,))},
    )


ROUTES: Final[tuple[Route, ...]] = (
    _document("/", show_console, "The live page for people", HTML),
    _document("/console/console.js", show_console_script, "Its script", _SCRIPT),
    _document("/console/words.js", show_console_words, "Its words", _SCRIPT),
    _document("/console/console.css", show_console_style, "Its style", _STYLE),
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
