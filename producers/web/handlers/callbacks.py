"""Handlers: WeChat's callbacks."""

from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.media import TEXT
from producers.web.traffic.threads import on_thread


async def verify_url(call: Call) -> Answer:
    """Answer the console's check of the URL."""
    services = call.services
    echo = await on_thread(services.quick, services.callbacks.verify, call.app, call.query.values)
    return Answer(body=echo.encode(), media=f"{TEXT}; charset=utf-8")


async def receive_push(call: Call) -> Answer:
    """Take one push; it is acted on afterwards."""
    services = call.services  # WeChat waits five seconds: nothing slow stands before it
    await on_thread(
        services.quick, services.callbacks.receive, call.app, call.query.values, call.body
    )
    return Answer(body=b"success", media=f"{TEXT}; charset=utf-8")
