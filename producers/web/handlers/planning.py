"""What is to come: whom a broadcast would reach, what to ask a user for."""

from typing import Annotated, Final

from pydantic import Field

from producers.access.api_keys import Scope
from producers.planning.forecast import Forecast
from producers.planning.plan import Plan
from producers.quotas import AppLimits
from producers.web.call import Call
from producers.web.handlers.broadcasts import Purpose
from producers.web.handlers.permits import CHAPTER
from producers.web.http.answer import Answer
from producers.web.http.problem import invalid
from producers.web.models import Channel, Decimal, Model, Number, Openid, Whom
from producers.web.routing.route import Route, ok


class ForecastQuery(Model):
    """What for."""

    channel: Channel
    template_id: str = Field("", max_length=128, description="subscribe: the template")
    audience: Whom = "all"
    rate: Annotated[float | None, Decimal] = Field(
        None, ge=0, le=1_000_000, description="sends per second to reckon with; default: as lately"
    )
    purpose: Purpose = ""


class PlanQuery(Model):
    """For whom."""

    openid: Openid | None = Field(None, description="with an API key: the user")
    most: Annotated[int, Number] = Field(3, ge=1, le=5, description="templates at the most")


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
        query.purpose,
    )
    return Answer(value=forecast)


async def show_limits(call: Call) -> Answer:
    """Show how much the app may send now."""
    return Answer(value=await call.run(call.services.quotas.limits, call.app))


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


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/limits",
        show_limits,
        Scope.READ,
        "Show the app's limits",
        CHAPTER,
        ok("The rate, what WeChat's limit errors left of it, the day", AppLimits),
    ),
    Route(
        "GET",
        "/v1/apps/{app}/permits/forecast",
        forecast_permits,
        Scope.READ,
        "Forecast the reach",
        CHAPTER,
        ok("Users reachable now, in 1 hour, 1 day and 7 days, and uses that end unsent", Forecast),
        query=ForecastQuery,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/permits/plan",
        plan_permits,
        Scope.READ,
        "Plan what to ask a user for",
        CHAPTER,
        ok("Templates that this user lacks, the most missing one first", Plan),
        query=PlanQuery,
        or_ticket=True,
        text="With a collector ticket the user is the ticket's.",
    ),
)
