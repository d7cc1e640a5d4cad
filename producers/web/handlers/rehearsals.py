"""Before a broadcast goes out: a dry run, a test to a few; and what WeChat's answers mean."""

import asyncio
import time
from typing import Final

from pydantic import Field, TypeAdapter

from producers.access.api_keys import Scope
from producers.audiences.expressions import MOST_TEXT
from producers.rehearsals import DryRun, Tried
from producers.rehearsals.answers import CODES
from producers.rehearsals.trials import EVERY_S, MOST
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER, WITH_ROWS, NewBroadcast
from producers.web.handlers.streams import on_stream
from producers.web.http.answer import Answer
from producers.web.models import Model, Openid
from producers.web.routing.multipart import ROWS, read_form
from producers.web.routing.route import Body, Route, json_body, ok

_WAITING: Final = 8
"""Test sends of one app that are waited for at once; further ones are answered at once."""


class Rehearsed(NewBroadcast):
    """A broadcast that is not created, or a series'."""

    name: str = Field("", max_length=64, description="of a series: its name")
    every: str = Field(
        "", max_length=100, description="of a series: five fields of cron", examples=["0 21 * * *"]
    )


class TestSend(NewBroadcast):
    """A broadcast's message, to a few users first."""

    audience: str = Field(
        "", max_length=MOST_TEXT, description="not read here, as rate, times, weight and priority"
    )
    openids: list[Openid] = Field(min_length=1, max_length=MOST, examples=[["oAnna", "oBert"]])
    rows: list[dict[str, str | int | float]] | None = Field(
        None,
        min_length=1,
        max_length=MOST,
        description="what data and page have holes for: of each user, or of the first for all",
        examples=[[{"openid": "oAnna", "name": "Anna"}]],
    )
    wait_s: int = Field(8, ge=0, le=10, description="how long the answers are waited for")


class Errcode(Model):
    """One answer of WeChat's."""

    errcode: int
    meaning: str = Field(description="one phrase")
    advice: str = Field(description="what to do; empty for nothing")


class Errcodes(Model):
    """What WeChat's answers to a send mean."""

    errcodes: list[Errcode]


_ERRCODES: Final = Errcodes(
    errcodes=[
        Errcode(errcode=code, meaning=one.meaning, advice=one.advice)
        for code, one in sorted(CODES.items())
    ]
)


async def list_errcodes(call: Call) -> Answer:  # noqa: ARG001 - a handler's signature
    """Say what WeChat's answers mean."""
    return Answer(value=_ERRCODES)


async def dry_run_broadcast(call: Call) -> Answer:
    """Say what a broadcast would do, and store nothing."""
    if call.streams:
        return Answer(value=await on_stream(call, _look_at_rows, call))
    body: Rehearsed = call.body
    given = {**body.given(call.app), "every": body.every, "key": body.name}
    return Answer(value=await call.run(lambda: call.services.dry_runs.look(**given)))


def _look_at_rows(call: Call) -> DryRun:
    said, rows = read_form(call, WITH_ROWS)
    look = call.services.dry_runs.look
    return look(**said.given(call.app), rows=rows, skip_bad=said.skip_bad)


async def test_send_broadcast(call: Call) -> Answer:
    """Send a broadcast's message to a few users, and say what WeChat answered."""
    body: TestSend = call.body
    trials, waiting = call.services.trials, call.services.waiting
    until = time.monotonic() + body.wait_s
    tried = await call.run(
        lambda: trials.look(trials.begin(body.openids, **body.given(call.app), rows=body.rows))
    )
    if waiting[call.app] >= _WAITING:
        return Answer(value=tried)
    waiting[call.app] += 1
    try:  # between two looks it holds no thread
        while not tried.ended and time.monotonic() < until:
            await asyncio.sleep(EVERY_S)
            tried = await call.run(trials.look, tried)
    finally:
        waiting[call.app] -= 1
    return Answer(value=tried)


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/dry-run",
        dry_run_broadcast,
        Scope.READ,
        "Try a broadcast dry",
        CHAPTER,
        ok("Recipients, reach, faults, hours and ETA; `faults` is empty if it would run", DryRun),
        body=Body(TypeAdapter(Rehearsed), form=WITH_ROWS, rows=ROWS),
        text="The body of `POST …/broadcasts`; nothing is stored, nothing is sent. A path of its "
        "own and no parameter, so that a typing error sends nothing.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/test-send",
        test_send_broadcast,
        Scope.SEND,
        "Send a broadcast's message to a few users first",
        CHAPTER,
        ok("What WeChat answered for each; `ended` is false if some have no answer yet", Tried),
        body=json_body(TestSend),
        problems=(409, 429),
        text="Single messages, each spending a permit; what is not sent within a minute is never "
        "sent. 409 while no worker would send them: nothing is posted then. Who has no answer "
        "after `wait_s` is shown by `GET …/messages/{message}`.",
    ),
    Route(
        "GET",
        "/v1/errcodes",
        list_errcodes,
        Scope.READ,
        "What WeChat's answers mean",
        CHAPTER,
        ok("Every errcode that a send may be answered with, and what to do", Errcodes),
    ),
)
