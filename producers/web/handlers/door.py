"""Handlers: the mini-program's door."""

from producers.web import models
from producers.web.call import Call
from producers.web.handlers.permits import collected
from producers.web.http.answer import Answer


async def log_in(call: Call) -> Answer:
    """Exchange a login code for a collector ticket."""
    body: models.Login = call.body
    door = call.services.door
    ticket = await door.login(call.app, body.code, call.remote, call.bearer)
    return Answer(value=models.Ticket(token=ticket.token, expires_in_s=ticket.expires_in_s))


async def collect_own(call: Call) -> Answer:
    """File permits for the ticket's user."""
    report = await call.run(call.services.door.collect, call.app, call.bearer, call.body)
    return Answer(value=collected(report))
