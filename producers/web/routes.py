"""The table of routes: all that the service does, once."""

from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from producers.access.api_keys import Scope
from producers.broadcasts.messages import MessageStatus
from producers.broadcasts.status import Status
from producers.planning.forecast import Forecast
from producers.planning.plan import Plan
from producers.users import UserCard
from producers.users.forget import Forgotten
from producers.web import models
from producers.web.handlers import (
    audiences,
    broadcasts,
    callbacks,
    door,
    health,
    messages,
    permits,
    users,
)
from producers.web.http.media import CSV, HTML, JSON, NDJSON, TEXT
from producers.web.routing.route import Body, Open, Reply, Route

_SMALL: Final = 65_536
"""Bytes of a body on routes that everybody may call."""

_PERMITS: Final = "Permits"
_AUDIENCES: Final = "Audiences"
_BROADCASTS: Final = "Broadcasts"
_MESSAGES: Final = "Messages"
_USERS: Final = "Users"
_PHONE: Final = "The mini-program's door"
_WECHAT: Final = "WeChat's callbacks"
_SERVICE: Final = "The service"

_OPENIDS: Final = "one openid a line"
_ROWS: Final = {
    TEXT: _OPENIDS,
    CSV: "a header that names a column openid, or the openid first",
    NDJSON: 'a line: "openid" or {"openid": "…"}',
}


def _json(model: type[BaseModel], *, required: bool = True) -> Body:
    return Body(TypeAdapter(model), required=required)


def _ok(text: str, model: type[Any]) -> dict[int, Reply]:
    return {200: Reply(text, model)}


TABLE: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/permits",
        permits.collect_permits,
        Scope.COLLECT,
        "File permits",
        _PERMITS,
        _ok(
            "What became of each item; what is counted as new or known is stored", models.Collected
        ),
        body=Body(models.UPLOADS, {NDJSON: "a line: one upload"}),
        creates=True,
        text="One upload, an array of them, or NDJSON of any length, which is read and stored as "
        "it comes. The same form_id or prepay_id twice is one permit, whatever became of the first "
        "one; a subscription counts once per `id` or `at`.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/permits/forecast",
        users.forecast_permits,
        Scope.READ,
        "Forecast the reach",
        _PERMITS,
        _ok("Users reachable now, in 1 hour, 1 day and 7 days, and uses that end unsent", Forecast),
        query=models.ForecastQuery,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/permits/plan",
        users.plan_permits,
        Scope.READ,
        "Plan what to ask a user for",
        _PERMITS,
        _ok("Templates that this user lacks, the most missing one first", Plan),
        query=models.PlanQuery,
        or_ticket=True,
        text="With a collector ticket the user is the ticket's.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/audiences",
        audiences.list_audiences,
        Scope.READ,
        "List audiences",
        _AUDIENCES,
        _ok("A page", models.AudienceList),
        query=models.AudienceQuery,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/audiences/{name}",
        audiences.show_audience,
        Scope.READ,
        "Show an audience",
        _AUDIENCES,
        _ok("Its size", models.Audience),
    ),
    Route(
        "PUT",
        "/v1/apps/{app}/audiences/{name}",
        audiences.replace_audience,
        Scope.SEND,
        "Replace an audience",
        _AUDIENCES,
        _ok("What became of the rows", models.Imported),
        body=Body(TypeAdapter(models.Members), _ROWS),
        text="The openids are its only members from then on; it is made if there is none. They are "
        "put in place when the last row is read: a call that breaks off before changes nothing, "
        "nor do rows of which not one holds an openid. To add to it, as this call itself "
        "once did, POST its `members`.",
    ),
    Route(
        "DELETE",
        "/v1/apps/{app}/audiences/{name}",
        audiences.delete_audience,
        Scope.SEND,
        "Delete an audience",
        _AUDIENCES,
        _ok("How many members it had", models.Deleted),
        problems=(422,),
        text="Not `all`: it goes with its users.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/audiences/{name}/members",
        audiences.add_members,
        Scope.SEND,
        "Add members",
        _AUDIENCES,
        _ok("What became of the rows", models.Imported),
        body=Body(TypeAdapter(models.Members), _ROWS),
        creates=True,
    ),
    Route(
        "POST",
        "/v1/apps/{app}/audiences/{name}/members/remove",
        audiences.remove_members,
        Scope.SEND,
        "Remove members",
        _AUDIENCES,
        _ok("What became of the rows", models.Removed),
        body=Body(TypeAdapter(models.Members), _ROWS),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts",
        broadcasts.create_broadcast,
        Scope.SEND,
        "Create a broadcast",
        _BROADCASTS,
        {
            201: Reply(
                "It runs", models.Created, headers={"Location": "where its status can be read"}
            )
        },
        body=_json(models.NewBroadcast),
        creates=True,
        text="The whole spec is checked before anything is stored.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/broadcasts",
        broadcasts.list_broadcasts,
        Scope.READ,
        "List broadcasts",
        _BROADCASTS,
        _ok("A page, the newest first", models.BroadcastList),
        query=models.BroadcastQuery,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/broadcasts/{id}",
        broadcasts.show_broadcast,
        Scope.READ,
        "Show a broadcast",
        _BROADCASTS,
        _ok("State, counts by outcome and errcode, rate and ETA", Status),
    ),
    Route(
        "PATCH",
        "/v1/apps/{app}/broadcasts/{id}",
        broadcasts.change_broadcast,
        Scope.SEND,
        "Change a broadcast's rate",
        _BROADCASTS,
        _ok("Workers follow within a second", models.Moved),
        body=_json(models.Change),
        problems=(409,),
    ),
    Route(
        "GET",
        "/v1/apps/{app}/broadcasts/{id}/recipients",
        broadcasts.list_recipients,
        Scope.READ,
        "List or export recipients",
        _BROADCASTS,
        {
            200: Reply(
                "A page; or with `format` all of them", models.RecipientList, media=(CSV, NDJSON)
            )
        },
        query=models.RecipientQuery,
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/pause",
        broadcasts.pause_broadcast,
        Scope.SEND,
        "Pause a broadcast",
        _BROADCASTS,
        _ok("Paused", models.Moved),
        body=_json(models.Reason, required=False),
        problems=(409,),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/resume",
        broadcasts.resume_broadcast,
        Scope.SEND,
        "Resume a broadcast",
        _BROADCASTS,
        _ok("Running again", models.Moved),
        body=_json(models.Resume, required=False),
        problems=(409,),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/cancel",
        broadcasts.cancel_broadcast,
        Scope.SEND,
        "Cancel a broadcast",
        _BROADCASTS,
        _ok("Cancelled", models.Moved),
        problems=(409,),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/messages",
        messages.post_message,
        Scope.SEND,
        "Send one message",
        _MESSAGES,
        {
            201: Reply(
                "It is on its way",
                models.Posted,
                headers={"Location": "where its status can be read"},
            )
        },
        body=_json(models.NewMessage),
        creates=True,
        text="One user, one message, now: sent before all broadcasts, with the same guarantees. "
        "409 with WeChat's errcode while the template is stopped: it refused too many in a row.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/messages/{message}",
        messages.show_message,
        Scope.READ,
        "Show a message",
        _MESSAGES,
        _ok("Where it is, or its outcome", MessageStatus),
    ),
    Route(
        "GET",
        "/v1/apps/{app}/users/{openid}",
        users.show_user,
        Scope.READ,
        "Show a user",
        _USERS,
        _ok("Permits by kind, template and expiry; recent sends and their outcomes", UserCard),
        text="What happened to this user. Of an unknown one, an empty card.",
    ),
    Route(
        "DELETE",
        "/v1/apps/{app}/users/{openid}",
        users.forget_user,
        Scope.ADMIN,
        "Forget a user everywhere",
        _USERS,
        _ok("What was known", Forgotten),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/login",
        door.log_in,
        Open.CODE,
        "Log a phone in",
        _PHONE,
        _ok("A ticket, for this user's permits alone", models.Ticket),
        body=Body(TypeAdapter(models.Login), limit=_SMALL),
        problems=(429,),
        text="Exchanges a code of wx.login. The session_key never leaves the service. A ticket "
        "that the phone had before, expired or not, may come as bearer: its user then waits behind "
        "no bad codes of the same address.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/collect",
        door.collect_own,
        Open.TICKET,
        "File the phone's own permits",
        _PHONE,
        _ok("What became of each item", models.Collected),
        body=Body(models.OWN_UPLOADS, limit=_SMALL),
        problems=(401, 403, 429),
        text="Files permits for the ticket's user, whatever the upload says. Repeating it changes "
        "nothing.",
    ),
    Route(
        "GET",
        "/wechat/{app}",
        callbacks.verify_url,
        Open.SIGNED,
        "Answer WeChat's check of the URL",
        _WECHAT,
        {200: Reply("echostr", media=(TEXT,))},
        query=models.PushQuery,
        problems=(403, 422),
    ),
    Route(
        "POST",
        "/wechat/{app}",
        callbacks.receive_push,
        Open.SIGNED,
        "Take a push of WeChat",
        _WECHAT,
        {200: Reply("success", media=(TEXT,))},
        body=Body(raw=True, limit=_SMALL),
        query=models.PushQuery,
        problems=(403, 415, 422),
        text="Plain, compatible and secure mode, JSON and XML; signed by WeChat.",
    ),
    Route(
        "GET",
        "/healthz",
        health.is_alive,
        Open.ALL,
        "Is the process alive?",
        _SERVICE,
        _ok("Yes", models.Health),
    ),
    Route(
        "GET",
        "/readyz",
        health.is_ready,
        Open.ALL,
        "Can it do its work?",
        _SERVICE,
        {200: Reply("Yes", models.Health), 503: Reply("No, and why", models.Health)},
        text="Redis answers, and was born with these lanes and buckets.",
    ),
    Route(
        "GET",
        "/openapi.json",
        health.show_openapi,
        Open.ALL,
        "This document",
        _SERVICE,
        {200: Reply("OpenAPI 3.1", media=(JSON,))},
    ),
    Route(
        "GET",
        "/docs",
        health.show_docs,
        Open.ALL,
        "This document, for people",
        _SERVICE,
        {200: Reply("A page that loads nothing from elsewhere", media=(HTML,))},
    ),
)
