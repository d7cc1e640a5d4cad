"""Handlers: users, and what is to come."""

from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.problem import invalid
from producers.web.models import ForecastQuery, PlanQuery


async def show_user(call: Call) -> Answer:
    """Show what a user gave, and what became of it."""
    return Answer(value=await call.run(call.services.users.show, call.app, call.path["openid"]))


async def forget_user(call: Call) -> Answer:
    """Forget a user everywhere."""
    return Answer(value=await call.run(call.services.users.forget, call.app, call.path["openid"]))


async def forecast_permits(call: Call) -> Answer:
    """Forecast whom a broadcast would reach, and what will end unsent."""
    query: ForecastQuery = call.query
    forecast = await call.run(
        call.services.forecaster.forecast,
        call.app,
        query.channel,
        query.template_id,
        query.audience,
        query.rate,
    )
    return Answer(value=forecast)


async def plan_permits(call: Call) -> Answer:
    """Plan which templates to ask a user for now."""
    query: PlanQuery = call.query
    services = call.services
    if call.key is None:  # a phone, which may ask for its own user
        openid = await call.run(services.door.enter, call.app, call.bearer)
        if query.openid not in {None, openid}:
            raise invalid("query.openid", "leave it out: the ticket says who asks")
    elif query.openid is None:
        raise invalid("query.openid", "say which user")
    else:
        openid = query.openid
    return Answer(value=await call.run(services.planner.plan, call.app, openid, query.most))
