"""The catalogue of log events: one model per event, and the only way to write one.

A line is one JSON object: ``event`` (the model's name in snake_case), ``schema``, ``time`` (UTC,
ISO 8601), ``level``, ``process``, and the model's fields. A field is never renamed and never
changes its type within one ``schema``. No line holds a token, a secret or a whole permit.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Final, Literal

from pydantic import TypeAdapter

from producers.logs.meanings import meaning_of

SCHEMA: Final = 1

Level = Literal["debug", "info", "warning", "error"]


@dataclass
class Event:
    """What every event has."""

    LEVEL: ClassVar[Level] = "info"

    @classmethod
    def name(cls) -> str:
        """Return the event's name: the class name in snake_case."""
        return _snake(cls.__name__)


_SNAKE: Final = re.compile(r"(?<!^)(?=[A-Z])")


@cache
def _snake(name: str) -> str:
    return _SNAKE.sub("_", name).lower()


@dataclass
class MessageSettled(Event):
    """One answer to one send, recorded. ``sample`` of them are written (``WXB_LOG_SAMPLE``).

    ``action``: settled, swapped (a dead permit, the next one claimed), delayed, kept (the same
    permit again), stale (another worker has it). ``outcome`` is empty unless settled.
    """

    app: str
    broadcast: str
    lane: int
    openid: str
    attempt: int
    action: str
    outcome: str
    errcode: int
    errmsg: str
    rid: str
    msgid: str
    permit_kind: str
    resumed: bool
    latency_ms: float
    sample: float


@dataclass
class BroadcastCounted(Event):
    """A broadcast's last word: it has ended, and every recipient has an outcome.

    Redis's own counts: recipients by ``outcome`` and answers by ``errcode``. Written once or more.
    What a receipt or an operator changes later is not in it.
    """

    app: str
    broadcast: str
    state: str
    total: int
    outcomes: dict[str, int]
    errcodes: dict[str, int]


@dataclass
class BroadcastCreated(Event):
    """A broadcast was stored, and is running, or waits for its start (epoch ms; 0: at once)."""

    app: str
    broadcast: str
    channel: str
    template_id: str
    audience: str
    audience_size: int
    starts_at_ms: int


@dataclass
class BroadcastRowsLoaded(Event):
    """A broadcast has a row for each recipient: rows that were read, were bad, and are sent."""

    app: str
    broadcast: str
    rows: int
    bad: int
    recipients: int


@dataclass
class BroadcastRetried(Event):
    """A broadcast is sent again to some of its recipients.

    ``broadcast`` is the new one, ``retry_of`` the one whose recipients they were, ``root`` the
    first of its family; ``retry_for`` says which: outcomes, and errcodes if they were named.
    """

    app: str
    broadcast: str
    retry_of: str
    root: str
    retry_for: str
    recipients: int


@dataclass
class SuppressionChanged(Event):
    """Openids were put on an app's suppression list, or taken off it (of any reason)."""

    app: str
    reason: str
    added: int
    removed: int


@dataclass
class UserOpted(Event):
    """A user wants nothing more (``out``), or wants messages again."""

    app: str
    openid: str
    out: bool


@dataclass
class BroadcastMoved(Event):
    """A broadcast changed: start, pause, resume, cancel, abort, expire, finish, or as follows.

    rate, weight, reschedule: the reason is the new one. reopen: outcomes of a finished one were
    forgotten; renew: moves were, that a lane knew of.
    """

    app: str
    broadcast: str
    move: str
    state: str
    generation: int
    reason: str
    errcode: int


@dataclass
class SeriesChanged(Event):
    """A series was created, paused, resumed or deleted; its next tick (epoch ms; 0: none)."""

    app: str
    series: str
    change: str
    next_at_ms: int


@dataclass
class SeriesTicked(Event):
    """A tick of a series made a broadcast, or none: then ``note`` says why."""

    app: str
    series: str
    tick_at_ms: int
    broadcast: str
    note: str


@dataclass
class AppRateChanged(Event):
    """Somebody set how many sends per second an app may start (0 = unlimited)."""

    app: str
    before: float
    after: float


@dataclass
class SendWindowOpened(Event):
    """A worker sends an app's broadcasts from now on; the window closes then (epoch ms)."""

    app: str
    closes_at_ms: int


@dataclass
class SendWindowClosed(Event):
    """A worker lets an app's broadcasts wait: its send window opens then (epoch ms)."""

    app: str
    opens_at_ms: int


@dataclass
class MessagePosted(Event):
    """A single message waits for its turn; ``broadcast`` is its carrier."""

    app: str
    broadcast: str
    openid: str
    channel: str
    template_id: str


@dataclass
class MessagesTested(Event):
    """A broadcast's message is sent to so many named users first; its own lines follow."""

    app: str
    channel: str
    template_id: str
    messages: int


@dataclass
class SplitOrdered(Event):
    """A broadcast takes so long that permits would end before their turn: those go first.

    A pass begins in a lane. Of the recipients who are not queued yet so many are at stake;
    length_s is how long all of them take; whoever's last permit ends before until_ms goes first.
    """

    app: str
    broadcast: str
    lane: int
    pass_number: int
    recipients: int
    at_stake: int
    length_s: int
    until_ms: int


@dataclass
class CanaryOpened(Event):
    """The first message of a broadcast was delivered: the rest may go."""

    app: str
    broadcast: str
    lane: int


@dataclass
class MessagesRecovered(Event):
    """A dead worker's messages went back to work."""

    LEVEL: ClassVar[Level] = "warning"

    broadcast: str
    lane: int
    dead_worker: str
    resumed: int
    in_doubt: int
    set_aside: int
    unsent: int


@dataclass
class ClaimsForgotten(Event):
    """A worker found claims under its name and not in its hands, and gave them back."""

    LEVEL: ClassVar[Level] = "warning"

    worker: str
    broadcast: str
    lane: int
    unsent: int
    unsure: int


@dataclass
class ServerChanged(Event):
    """Redis is another server, or was restarted: what it may have forgotten is in doubt."""

    LEVEL: ClassVar[Level] = "warning"

    server: str
    silent_ms: int
    broadcasts: int
    paused: bool


@dataclass
class ReceiptSettled(Event):
    """WeChat's sent event said what became of a message."""

    app: str
    broadcast: str
    openid: str
    template_id: str
    msgid: str
    errcode: int
    status: str
    result: str


@dataclass
class WorkerStarted(Event):
    """A worker process is ready to take messages."""

    worker: str
    lanes: int
    apps: int
    in_flight: int


@dataclass
class WorkerStopping(Event):
    """A worker process stops taking messages and settles what is in flight."""

    worker: str
    in_flight: int


@dataclass
class WorkerStopped(Event):
    """A worker process has nothing left in its hands (or gave up waiting: see ``in_flight``)."""

    worker: str
    in_flight: int
    seconds: float


@dataclass
class WorkerBuried(Event):
    """A worker whose beat stood still for a whole lease was declared dead."""

    LEVEL: ClassVar[Level] = "warning"

    worker: str
    dead_worker: str
    silent_ms: int


@dataclass
class AppsChanged(Event):
    """A process has taken up what the apps' file says now.

    ``came``, ``changed`` and ``went`` name up to 20 apps each; ``digest`` is equal where two
    processes have the same apps, and says nothing of what is set.
    """

    file: str
    apps: int
    came: str
    changed: str
    went: str
    digest: str


@dataclass
class AppsRefused(Event):
    """The apps' file has faults, or is gone: this process keeps the apps that it has.

    ``faults`` says up to 20 of so ``many``, where each is and what it wants, and never a value.
    Logged once for each content of the file.
    """

    LEVEL: ClassVar[Level] = "error"

    file: str
    many: int
    faults: str
    digest: str


@dataclass
class SettingsLinksIgnored(Event):
    """Variables named as settings are service links, which Kubernetes sets: they set nothing.

    ``links`` names up to 20 of so ``many``. Pods with ``enableServiceLinks: false`` get none.
    """

    LEVEL: ClassVar[Level] = "warning"

    many: int
    links: str


@dataclass
class AliasReassigned(Event):
    """Somebody let an alias stand for another mini-program."""

    LEVEL: ClassVar[Level] = "warning"

    app: str
    appid_before: str
    appid: str


@dataclass
class BootFailed(Event):
    """A worker process could not start; it ends."""

    LEVEL: ClassVar[Level] = "error"

    error: str


@dataclass
class WorkerBroken(Event):
    """A part that a worker process cannot do without ended; the process drains and ends too."""

    LEVEL: ClassVar[Level] = "error"

    worker: str
    part: str
    error: str


@dataclass
class WorkerOutlived(Event):
    """The deployment gets or has other lanes; the process drains and ends, to be started anew."""

    LEVEL: ClassVar[Level] = "warning"

    worker: str
    before: int
    after: int
    why: str


@dataclass
class TokenRefreshed(Event):
    """A new access token is in use by everyone."""

    app: str
    source: str
    forced: bool
    expires_in_s: int


@dataclass
class TokenRefreshFailed(Event):
    """The token service did not give a token; the one in use stays, the refresh is repeated."""

    LEVEL: ClassVar[Level] = "error"

    app: str
    source: str
    errcode: int
    error: str


@dataclass
class TemplatesRead(Event):
    """An app's list of templates was read from WeChat.

    ``whole`` is false when it had more, or others, than are kept: then no template is called
    unknown. ``bytes``: as it is stored.
    """

    app: str
    channel: str
    templates: int
    whole: bool
    bytes: int
    took_ms: int


@dataclass
class TemplatesFailed(Event):
    """An app's list of templates could not be read; the last one stays.

    It is not asked for again within ``wait_ms``. Where WeChat answered ``errcode`` is its code.
    """

    LEVEL: ClassVar[Level] = "warning"

    app: str
    channel: str
    errcode: int
    error: str
    wait_ms: int


@dataclass
class LimitHit(Event):
    """WeChat answered with a limit error: all workers hold back."""

    LEVEL: ClassVar[Level] = "warning"

    app: str
    errcode: int
    rid: str
    strikes: int
    wait_ms: int


@dataclass
class RateLowered(Event):
    """WeChat takes less than the app may send: all its workers send slower, and more by and by.

    Sends per second, before (0: without a limit) and after.
    """

    LEVEL: ClassVar[Level] = "warning"

    app: str
    errcode: int
    rid: str
    before: float
    after: float


@dataclass
class RateRestored(Event):
    """An app that was slowed by WeChat's limit errors sends at its rate again (0 = unlimited)."""

    app: str
    rate: float


@dataclass
class QuotaRead(Event):
    """WeChat said what is left of the day's quota of one channel's API."""

    app: str
    channel: str
    limit: int
    used: int
    remain: int


@dataclass
class QuotaUnknown(Event):
    """WeChat does not say what is left of a quota; the app's own ``daily_limit`` holds."""

    LEVEL: ClassVar[Level] = "warning"

    app: str
    channel: str
    error: str


@dataclass
class QuotaSpent(Event):
    """A worker found the day's quota of a channel, or ``daily_limit``, used up for so long."""

    LEVEL: ClassVar[Level] = "warning"

    app: str
    channel: str
    seconds: int


@dataclass
class ErrcodeDiagnosed(Event):
    """What WeChat says of one refusal with a code that is not in the table; names, no values."""

    LEVEL: ClassVar[Level] = "warning"

    app: str
    errcode: int
    rid: str
    said: str


@dataclass
class GateClosed(Event):
    """A worker takes nothing more for an app: its own POSTs do not come through.

    ``reason``: ``no connection`` came up, or ``no answer`` came to several in a row. Nobody else is
    slowed.
    """

    LEVEL: ClassVar[Level] = "warning"

    worker: str
    app: str
    reason: str
    error: str


@dataclass
class GateOpened(Event):
    """WeChat answers this worker again."""

    worker: str
    app: str
    reason: str
    closed_ms: int


@dataclass
class LimitLifted(Event):
    """WeChat accepts again after limit errors."""

    app: str


@dataclass
class UnknownErrcode(Event):
    """WeChat answered with a code that is not in the table."""

    LEVEL: ClassVar[Level] = "error"

    app: str
    broadcast: str
    errcode: int
    errmsg: str
    rid: str


@dataclass
class StoreUnreachable(Event):
    """Redis did not answer; what was asked is repeated with the same token."""

    LEVEL: ClassVar[Level] = "warning"

    during: str
    error: str
    attempt: int


@dataclass
class ReplicasBehind(Event):
    """Too few replicas have what was done; it is handed back, repeated, or at last counted."""

    LEVEL: ClassVar[Level] = "warning"

    during: str
    have: int
    attempt: int
    counted: bool


@dataclass
class LanesChanging(Event):
    """The lanes of the deployment begin to be changed: nothing is sent or stored meanwhile."""

    LEVEL: ClassVar[Level] = "warning"

    before: int
    after: int
    resumed: bool


@dataclass
class LanesChanged(Event):
    """The deployment has its new lanes."""

    before: int
    after: int
    moved: int
    standstill_s: float


@dataclass
class DutyFailed(Event):
    """A duty of a worker failed; it runs again in a second."""

    LEVEL: ClassVar[Level] = "error"

    duty: str
    lane: int
    error: str


@dataclass
class AppFailed(Event):
    """An error that nobody foresaw in taking or reserving for one app.

    What was claimed is handed back, and the app waits a second in this worker; the others go on.
    """

    LEVEL: ClassVar[Level] = "error"

    app: str
    during: str
    error: str


@dataclass
class PermitsExpired(Event):
    """Uses that nobody spent in time left the stock."""

    app: str
    lane: int
    uses: int


@dataclass
class MetricsServed(Event):
    """A worker tells Prometheus its figures there; port 0: none was free, and why."""

    worker: str
    host: str
    port: int
    error: str


@dataclass
class PermitsCollected(Event):
    """A batch of permits was stored."""

    app: str
    new: int
    known: int
    refused: int
    evicted: int


@dataclass
class LoginAnswered(Event):
    """WeChat said whose login code it was, or that it does not take it (``errcode``)."""

    app: str
    openid: str
    errcode: int
    rid: str


@dataclass
class LoginFailed(Event):
    """WeChat gave no verdict on a login code: busy, away, or it refuses this app's settings."""

    LEVEL: ClassVar[Level] = "error"

    app: str
    errcode: int
    rid: str
    error: str


@dataclass
class PushActed(Event):
    """What users chose, pushed by WeChat, had its effect; a sent event is a `receipt_settled`.

    Of its ``items``: ``given`` counted as accepts, ``known`` were counted before, ``withdrawn``
    made earlier accepts void, and the others changed nothing.
    """

    app: str
    push: str
    openid: str
    created_at_ms: int
    items: int
    given: int
    known: int
    withdrawn: int


@dataclass
class PushStrange(Event):
    """A push was about a template that is none of this app's: it had no effect."""

    LEVEL: ClassVar[Level] = "warning"

    app: str
    push: str
    openid: str
    template_id: str


@dataclass
class PushDropped(Event):
    """A genuine push that nothing here acts on: another event, a user's message, a probe."""

    app: str
    push: str


@dataclass
class PushRefused(Event):
    """A push, or a URL check, was turned away: forged, malformed, or no room for it.

    ``left_out`` is how many such lines were not written before it.
    """

    LEVEL: ClassVar[Level] = "warning"

    app: str
    reason: str
    left_out: int


@dataclass
class PushFailed(Event):
    """Acting on a stored push failed in a way that would repeat itself; it was removed."""

    LEVEL: ClassVar[Level] = "error"

    app: str
    push: str
    openid: str
    error: str


@dataclass
class WebhookDelivered(Event):
    """The app's own service took a webhook, at its so many-th time."""

    app: str
    broadcast: str
    webhook: str
    type: str
    attempts: int
    status: int
    latency_ms: float


@dataclass
class WebhookFailed(Event):
    """The app's own service did not take a webhook; it is posted again after ``wait_ms``."""

    LEVEL: ClassVar[Level] = "warning"

    app: str
    broadcast: str
    webhook: str
    type: str
    attempts: int
    status: int
    error: str
    wait_ms: int


@dataclass
class WebhookDead(Event):
    """A webhook was given up, and is a dead letter: ``wxbroadcast webhooks replay``."""

    LEVEL: ClassVar[Level] = "error"

    app: str
    broadcast: str
    webhook: str
    type: str
    attempts: int
    status: int
    error: str


@dataclass
class WebhooksReplayed(Event):
    """Somebody let dead letters be posted again."""

    app: str
    webhooks: int


@dataclass
class UserForgotten(Event):
    """A user was forgotten everywhere; the line does not say who."""

    app: str
    lane: int
    uses: int
    audiences: int
    outcomes: int
    dropped: int
    in_doubt: int
    in_hands: int


@dataclass
class AppExported(Event):
    """An app was exported: its users, the uses and accepts that they have, and what is gone."""

    app: str
    export: str
    users: int
    uses: int
    gone: int


@dataclass
class AppImported(Event):
    """An export was imported: users and uses that are new, and lines that said nothing."""

    app: str
    export: str
    users: int
    added: int
    bad: int
    whole: bool


@dataclass
class AudienceDeleted(Event):
    """An audience was deleted."""

    app: str
    audience: str
    members: int


@dataclass
class UnitEnded(Event):
    """A unit of the Procfile ended and is started again."""

    LEVEL: ClassVar[Level] = "warning"

    unit: str
    pid: int
    exit_code: int
    restarts: int


@dataclass
class RequestAnswered(Event):
    """The HTTP service answered a request: which key did what. ``key`` is the key's id, or ''.

    ``route`` is the path as the OpenAPI document has it, '' when there is none; a collector
    ticket's ``key`` is ``ticket``. ``latency_ms`` counts from the request's head to the answer.
    ``left_out`` is how many lines of requests without a key or ticket were not written before it.
    """

    request_id: str
    method: str
    route: str
    status: int
    key: str
    app: str
    remote: str
    bytes_in: int
    latency_ms: float
    left_out: int


@dataclass
class RequestFailed(Event):
    """The HTTP service answered 500: an error that nobody foresaw."""

    LEVEL: ClassVar[Level] = "error"

    request_id: str
    route: str
    error: str
    trace: str


@dataclass
class WebStarted(Event):
    """A process of the HTTP service listens."""

    host: str
    port: int
    pid: int


@dataclass
class WebOutlived(Event):
    """Redis knows of fewer lanes than there were; the process drains and ends, to start anew."""

    LEVEL: ClassVar[Level] = "warning"

    pid: int
    why: str


@dataclass
class WebStopping(Event):
    """A process of the HTTP service takes no more requests and finishes what runs."""

    requests: int


@dataclass
class WebStopped(Event):
    """A process of the HTTP service has ended (``requests``: what was cut off)."""

    requests: int
    seconds: float


@dataclass
class ApiKeyCreated(Event):
    """An API key was made. Never the key itself."""

    key: str
    key_name: str
    apps: str
    scopes: str
    rate: int


@dataclass
class ApiKeyRevoked(Event):
    """An API key was revoked; services refuse it within two seconds."""

    key: str
    key_name: str


@dataclass
class LinesDropped(Event):
    """Lines were dropped, and no other came to say so: see its ``dropped_lines``."""

    LEVEL: ClassVar[Level] = "warning"


@dataclass
class LogProcessorFailed(Event):
    """A log processor of the application failed at an event, whose lines it costs; told once each.

    How many are lost, ``dropped_lines`` of the next lines says.
    """

    LEVEL: ClassVar[Level] = "error"

    processor: str
    line: str
    error: str


@dataclass
class LibraryLine(Event):
    """A line that a library logged: Dramatiq, aiohttp, redis-py, asyncio."""

    logger: str
    message: str
    exception: str


def catalogue() -> Iterator[type[Event]]:
    """Yield every event model, by name."""
    yield from sorted(Event.__subclasses__(), key=lambda model: model.name())


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema of a log line: one object per event."""
    lines = []
    for model in catalogue():
        schema = TypeAdapter(model).json_schema()
        schema["properties"] = {
            "event": {"const": model.name()},
            "schema": {"const": SCHEMA},
            "time": {"type": "string", "format": "date-time"},
            "level": {"enum": ["debug", "info", "warning", "error", "critical"]},
            "process": {"type": "string"},
            "dropped_lines": {"type": "integer"},
            **schema.get("properties", {}),
        }
        schema["required"] = [
            "event",
            "schema",
            "time",
            "level",
            "process",
            *(field.name for field in fields(model)),
        ]
        schema["additionalProperties"] = False
        for name, field in schema["properties"].items():
            text, unit = meaning_of(model.name(), name)
            field["description"] = f"{text} ({unit})" if unit else text
        lines.append(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "oneOf": lines}
