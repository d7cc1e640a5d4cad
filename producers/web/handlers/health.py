"""The service itself: its health, its figures, and the documents."""

from typing import Final, Literal

from pydantic import Field

from producers.access.api_keys import ANY_APP, Scope
from producers.metrics import MEDIA, exposed
from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.media import HTML, JSON
from producers.web.models import Model
from producers.web.routing.route import Open, Reply, Route, ok

CHAPTER: Final = "The service"


class Health(Model):
    """Whether it works."""

    status: Literal["ok", "not_ready"]
    faults: list[str] = Field(description="what is wrong, one sentence each")


async def is_alive(call: Call) -> Answer:  # noqa: ARG001 - a handler's signature
    """Say that the process lives."""
    return Answer(value=Health(status="ok", faults=[]))


async def is_ready(call: Call) -> Answer:
    """Say whether it can do its work."""
    services = call.services
    faults = ["the process is stopping"] if services.stopping else []
    found = await services.readiness.look()
    ready = found.ready and not faults
    return Answer(
        200 if ready else 503,
        value=Health(status="ok" if ready else "not_ready", faults=faults + found.faults),
    )


async def show_openapi(call: Call) -> Answer:
    """Show the OpenAPI document."""
    return Answer(body=call.services.documents.openapi)


async def show_docs(call: Call) -> Answer:
    """Show the API for people."""
    return Answer(
        body=call.services.documents.page,
        media=f"{HTML}; charset=utf-8",
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        },
    )


async def show_metrics(call: Call) -> Answer:
    """Show the figures of the apps that the key is for."""
    key, services = call.key, call.services
    assert key is not None  # noqa: S101 - the route asks for a scope
    own = (services.meter,) if ANY_APP in key.apps else ()
    text = await call.run(exposed, services.deployment.of(key.is_for), *own)
    return Answer(body=text, media=MEDIA)


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/healthz",
        is_alive,
        Open.ALL,
        "Is the process alive?",
        CHAPTER,
        ok("Yes", Health),
    ),
    Route(
        "GET",
        "/readyz",
        is_ready,
        Open.ALL,
        "Can it do its work?",
        CHAPTER,
        {200: Reply("Yes", Health), 503: Reply("No, and why", Health)},
        text="Redis answers, and has these lanes and buckets. On a cluster it is ready while any "
        "node answers; `faults` names those that do not.",
    ),
    Route(
        "GET",
        "/openapi.json",
        show_openapi,
        Open.ALL,
        "This document",
        CHAPTER,
        {200: Reply("OpenAPI 3.1", media=(JSON,))},
    ),
    Route(
        "GET",
        "/docs",
        show_docs,
        Open.ALL,
        "This document, for people",
        CHAPTER,
        {200: Reply("A page that loads nothing from elsewhere", media=(HTML,))},
    ),
    Route(
        "GET",
        "/metrics",
        show_metrics,
        Scope.READ,
        "Figures for Prometheus",
        CHAPTER,
        {200: Reply("Prometheus's text format", media=("text/plain",))},
        text="Of the apps that the key is for; with a key for all apps, of the process that "
        "answers too. Redis is looked at once in five seconds, however many ask. A worker has "
        "its own figures at WXB_METRICS_PORT.",
    ),
)
