"""Handlers: health, and the documents."""

from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.media import HTML
from producers.web.models import Health


async def is_alive(call: Call) -> Answer:  # noqa: ARG001 - a handler's signature
    """Say that the process lives."""
    return Answer(value=Health(status="ok", faults=[]))


async def is_ready(call: Call) -> Answer:
    """Say whether it can do its work."""
    services = call.services
    faults = ["the process is stopping"] if services.stopping else []
    if fault := await services.readiness.fault():
        faults.append(fault)
    return Answer(
        503 if faults else 200,
        value=Health(status="not_ready" if faults else "ok", faults=faults),
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
