"""Every Redis key, each built by one function whose docstring gives type, members, lifetime, owner.

``{3}`` in a key is a *lane* tag: all that one script touches shares one, so that the script is
atomic on a single server and on a Redis Cluster alike. ``{app:shop}`` is an app's own tag.
Scripts that find their keys on the way (which broadcast is next, which openid) build them from
the lane's prefix by the same names as here.

Every key has a TTL, but for those of `LASTING`, which says why.
"""

import zlib
from collections.abc import Callable
from typing import Final

from producers.settings import Settings

PREFIX: Final = "wxb"

DEPLOYMENT: Final = "wxb:deployment"
"""hash: lanes, buckets, layout. Written when the deployment is born; never expires.

Of one whose lanes were changed also how many there were earlier; while they are, to how many, by
which run and how far (`settings.layout`, `relaning`).
"""

WORKERS: Final = "wxb:workers"
"""zset: worker id → its last beat (server epoch ms). Owner: the beat; the dead are removed."""

SERVER: Final = "wxb:server"
"""string: run_id of the Redis server that the deployment last ran on; never expires."""

SERVERS: Final = "wxb:servers"
"""hash: of a cluster, id of a node that serves slots → its run_id when it last did.

As `SERVER`; never expires. Owner: `workers.duties.epochs`.
"""

SEEN: Final = "{wxb:workers}:seen"
"""hash: what is known of the workers as a whole, of a server that may have been restored.

``at_ms`` the last beat of any of them (server epoch ms); ``resting`` 1 when the last one has left
with nothing in its hands; ``epoch`` the run_id that the epoch began with, ``epoch_at_ms`` what
``at_ms`` was then. Never expires. Owner: the beat, and `workers.duties.epochs`.
"""

UNREPLICATED: Final = "{wxb:workers}:unreplicated"
"""string: answers that counted though too few replicas had them; a day. Owner: settling."""

APPS: Final = "wxb:apps"
"""zset: app → when its newest broadcast was created (ms). As long as that may be looked at."""

SERIES_DUE: Final = "{wxb:series}:due"
"""zset: ``APP NAME`` of each series that is not paused → its next tick (ms). Owner: `series`."""

TEMPLATES_DUE: Final = "{wxb:templates}:due"
"""zset: ``CHANNEL APP`` of each wanted list of templates → from when on it may be read (ms).

30 days after the last one was wanted. Owner: `templates`.
"""

API_KEYS: Final = "wxb:{keys}:all"
"""hash: id of an API key → JSON: digest, name, apps, scopes, rate, created. Revoking removes it."""

WAKE: Final = "wxb:wake"
"""pub/sub channel: ``wake LANE APP`` (something may be taken), ``stop ID`` and ``go ID`` (of a
broadcast), ``rate APP``, ``templates CHANNEL APP`` (they are wanted), ``lanes`` (there are others).
Nothing depends on it."""

ROWS_NAME: Final = "~r"
"""What a name begins with whose openids lie in rows."""

DRAMATIQ_NAMESPACE: Final = "{wxb:jobs}"
"""Namespace of Dramatiq's stock queues: only the edges that the keeper would do a second later."""


def bucket_of(openid: str, buckets: int) -> int:
    """Return the bucket of an openid, 0 ≤ bucket < buckets."""
    return zlib.crc32(openid.encode()) % buckets


def place_of(openid: str, settings: Settings) -> tuple[int, int, str]:
    """Return where a user lives: (lane, bucket, item).

    The item is the bucket and the openid, as queues, flights and doubts name a recipient.
    """
    layout = settings.layout
    bucket = layout.bucket_of(openid)
    return layout.of_number(bucket), bucket, f"{bucket}:{openid}"


def is_carrier(broadcast: str) -> bool:
    """Say whether a broadcast carries single messages (`broadcasts.messages`), by its id."""
    return broadcast.startswith("m")


def is_test_carrier(broadcast: str) -> bool:
    """Say whether a broadcast carries the messages of test sends, by its id (`carriers`)."""
    return is_carrier(broadcast) and broadcast[6:7] == "t"


def is_beside(audience: str) -> bool:
    """Say whether sets of openids under this name are no audience, but were built beside."""
    return audience.startswith("~")


def is_rows(audience: str) -> bool:
    """Say whether who is under this name lies in rows (`rows`), and in no sets."""
    return audience.startswith(ROWS_NAME)


def lane_prefix(lane: int) -> str:
    """Return what every key of a lane starts with, hash tag included."""
    return f"{PREFIX}:{{{lane}}}:"


def permits(lane: int, app: str, openid: str) -> str:
    """zset: one member per use (``f:FORM_ID``, ``p:PREPAY_ID:1``…``:3``) → expires_at_ms.

    Held, spent and void uses stay as tombstones, score −expires_at_ms. Until the last expires.
    """
    return f"{lane_prefix(lane)}permits:{app}:{openid}"


def subscriptions(lane: int, app: str, openid: str) -> str:
    """hash: template_id → count (−1 = long-term, unlimited), never 0; at most 50 templates.

    No end, for WeChat gives accepts none: the key goes with the last of them.
    """
    return f"{lane_prefix(lane)}subs:{app}:{openid}"


def marks(lane: int, app: str, openid: str) -> str:
    """hash: template_id → ``VOID VOIDED FLOOR`` and `` DIGEST:GIVEN`` per id; see permit.lua.

    At most 20 templates, of each the 32 newest ids: under 24 kB. 30 days after the last result.
    """
    return f"{lane_prefix(lane)}marks:{app}:{openid}"


def dead_permits(lane: int, app: str, day: int) -> str:
    """hash: openid → permits of the user that WeChat called dead on a day (UTC); 2 days."""
    return f"{lane_prefix(lane)}dead:{app}:{day}"


def forgot(lane: int) -> str:
    """string: run_id of the lane's server that may have forgotten something last; 8 days.

    Owner: `workers.duties.epochs`.
    """
    return f"{lane_prefix(lane)}forgot"


def doubted(lane: int, app: str) -> str:
    """hash: openid → when a permit of theirs proved used, in `forgot`'s time; see doubted.lua.

    8 days after the last.
    """
    return f"{lane_prefix(lane)}doubted:{app}"


def daily(lane: int, app: str, day: int, bucket: int) -> str:
    """hash: openid → what counts for the user's caps on a day of the app's zone; see capped.lua.

    Two days. Only of apps that have a cap.
    """
    return f"{lane_prefix(lane)}daily:{app}:{day}:{bucket}"


def queue(lane: int, broadcast: str) -> str:
    """list: ``bucket:openid`` of each queued message of a broadcast, the next one left."""
    return f"{lane_prefix(lane)}queue:{broadcast}"


def soon(lane: int, broadcast: str, slot: int) -> str:
    """list: ``bucket:openid`` of those who go first and are not queued yet; see hurried.lua.

    By the slot of time in which their last use ends. As the outcomes.
    """
    return f"{lane_prefix(lane)}soon:{broadcast}:{slot}"


def hurried(lane: int, broadcast: str, bucket: int) -> str:
    """hash: openid → slot of those of one bucket who go first, or went; see hurried.lua.

    Until the bucket is split. As the outcomes.
    """
    return f"{lane_prefix(lane)}hurried:{broadcast}:{bucket}"


def delayed(lane: int, broadcast: str) -> str:
    """zset: ``bucket:openid`` of each delayed message → due (server epoch ms)."""
    return f"{lane_prefix(lane)}delayed:{broadcast}"


def flight(lane: int, broadcast: str) -> str:
    """hash: ``bucket:openid`` → ``worker fence member expires_at_ms since_ms tries resumed``.

    Exists only while a POST may be unanswered. The worker is ``-`` while a resumed one waits, and
    ``aside`` when it was set aside. Resumed: 1, 0, or n: see flight.lua.
    """
    return f"{lane_prefix(lane)}flight:{broadcast}"


def tries(lane: int, broadcast: str) -> str:
    """hash: ``bucket:openid`` → attempts so far, of those retried without a permit."""
    return f"{lane_prefix(lane)}tries:{broadcast}"


def suspects(lane: int, broadcast: str) -> str:
    """list: ``openid refused_at_ms accepts`` of those refused before the first delivery.

    Their other permits are void once it came, or at the broadcast's end. As the outcomes.
    """
    return f"{lane_prefix(lane)}suspects:{broadcast}"


def doubts(lane: int, broadcast: str) -> str:
    """hash: ``bucket:openid`` → ``since_ms until_ms member`` of each recipient in doubt."""
    return f"{lane_prefix(lane)}doubts:{broadcast}"


def receipts(lane: int, app: str, openid: str) -> str:
    """hash: ``template msgid`` → ``errcode at_ms`` of receipts that came first; one day."""
    return f"{lane_prefix(lane)}receipts:{app}:{openid}"


def outcomes(lane: int, broadcast: str, bucket: int) -> str:
    """hash: openid → outcome and errcode (``delivered``, ``refused 43101``), listpack-sized."""
    return f"{lane_prefix(lane)}outcomes:{broadcast}:{bucket}"


def msgids(lane: int, broadcast: str, bucket: int) -> str:
    """hash: openid → msgid of the accepted send; one day, for receipts."""
    return f"{lane_prefix(lane)}msgids:{broadcast}:{bucket}"


def recipients(lane: int, broadcast: str) -> str:
    """bitmap: bit b is set when bucket b gave a broadcast recipients; as its last outcome.

    So its outcomes are found whatever becomes of the audience.
    """
    return f"{lane_prefix(lane)}recipients:{broadcast}"


def leaving(lane: int) -> str:
    """hash: ``broadcast bucket:openid`` → the name that its outcome is to be written under.

    Of the forgotten, while a message of theirs is in a worker's hands. 8 days after the last.
    """
    return f"{lane_prefix(lane)}leaving"


def mail(lane: int, carrier: str) -> str:
    """hash: ``bucket:openid`` → ``deadline_ms payload`` of each message without an outcome.

    As the outcomes; see `producers.broadcasts.messages`.
    """
    return f"{lane_prefix(lane)}mail:{carrier}"


def posted(lane: int, app: str, key: str) -> str:
    """string: ``carrier digest`` of the message that a user's key (its digest) posted; 1 day."""
    return f"{lane_prefix(lane)}posted:{app}:{key}"


def pace(lane: int, broadcast: str) -> str:
    """list: ``at_ms settled answered`` of the last seconds in which it moved; one minute."""
    return f"{lane_prefix(lane)}pace:{broadcast}"


def lane_broadcast(lane: int, broadcast: str) -> str:
    """hash: a lane's copy of a broadcast: state, generation, cursor, counts. As the outcomes."""
    return f"{lane_prefix(lane)}lane:{broadcast}"


def ring(lane: int, app: str) -> str:
    """list: ids of the app's broadcasts with queued messages in this lane, in turn."""
    return f"{lane_prefix(lane)}ring:{app}"


def priority_ring(lane: int, app: str) -> str:
    """list: as `ring`, served before it."""
    return f"{lane_prefix(lane)}first:{app}"


def shares(lane: int, app: str) -> str:
    """hash: broadcast → weight, of those that run and do not weigh 1, and their round.

    See shares.lua. As the outcomes of the last one; nothing where all weigh the same.
    """
    return f"{lane_prefix(lane)}shares:{app}"


def busy(lane: int) -> str:
    """set: aliases of the apps with something in a ring of this lane. Owner: ring.lua, take.lua."""
    return f"{lane_prefix(lane)}busy"


def due(lane: int) -> str:
    """zset: ``ID`` or ``ID home`` → from when on the keeper must look at it (ms); see need.lua."""
    return f"{lane_prefix(lane)}due"


def doing(lane: int) -> str:
    """zset: as `due`, given to the keeper → when it is due again unless it was done (ms)."""
    return f"{lane_prefix(lane)}doing"


def flying(lane: int) -> str:
    """set: ids of the broadcasts with entries in `flight`. Owner: take, until it is empty."""
    return f"{lane_prefix(lane)}flying"


def hooks(lane: int) -> str:
    """hash: app → ``MOST BYTES TYPE …``: which webhook events are kept, and how much of them.

    Owner: the workers, by their settings. As long as an app wants any.
    """
    return f"{lane_prefix(lane)}hooks"


def hooks_due(lane: int) -> str:
    """zset: app → from when on its webhook events are to be looked at (ms); 30 days.

    Owner: the scripts of `webhooks`, as of all that follows here.
    """
    return f"{lane_prefix(lane)}hooks:due"


def hook_due(lane: int, app: str) -> str:
    """zset: broadcast → when its oldest event is to be posted (ms); 30 days after the last use."""
    return f"{lane_prefix(lane)}hooks:due:{app}"


def hook_queue(lane: int, app: str) -> str:
    """zset: ``BROADCAST NUMBER`` of each event that waits, all of score 0; as `hook_due`."""
    return f"{lane_prefix(lane)}hooks:queue:{app}"


def hook_events(lane: int, app: str) -> str:
    """hash: ``BROADCAST NUMBER`` → the event's text, waiting or dead; as `hook_due`."""
    return f"{lane_prefix(lane)}hooks:events:{app}"


def hook_tries(lane: int, app: str) -> str:
    """hash: ``BROADCAST NUMBER`` → ``attempts why`` of events that failed; as `hook_due`."""
    return f"{lane_prefix(lane)}hooks:tries:{app}"


def hook_dead(lane: int, app: str) -> str:
    """zset: ``BROADCAST NUMBER`` → when it was given up (ms): the dead letters; as `hook_due`."""
    return f"{lane_prefix(lane)}hooks:dead:{app}"


def hook_out(lane: int, app: str) -> str:
    """zset: broadcast → end of the lease of who posts its event (ms); as `hook_due`."""
    return f"{lane_prefix(lane)}hooks:out:{app}"


def hook_kept(lane: int, app: str) -> str:
    """hash: ``bytes`` kept, ``last`` number given, ``dropped`` events; as `hook_due`."""
    return f"{lane_prefix(lane)}hooks:kept:{app}"


def sending(lane: int, app: str) -> str:
    """zset: openid → end of its lease (ms): one message at a time per user. POST timeout + 1 s."""
    return f"{lane_prefix(lane)}sending:{app}"


def stock(lane: int, app: str) -> str:
    """hash: available uses by expiry hour (``f:HOUR``, ``p:HOUR``) and per template (``s:ID``).

    ``u:HOUR`` counts the users whose last use ends in that hour. Past hours are trimmed into the
    ledger as expired; ``trimmed`` is the first hour that was not yet.
    """
    return f"{lane_prefix(lane)}stock:{app}"


def ledger(lane: int, app: str) -> str:
    """hash: ``collected:K``, ``spent:K``, ``void:K``, ``expired:K`` → uses, K = f, p or s."""
    return f"{lane_prefix(lane)}ledger:{app}"


def fence(lane: int) -> str:
    """string: the last fence token given out in this lane; never goes back."""
    return f"{lane_prefix(lane)}fence"


def shut(lane: int) -> str:
    """string: 1, then `copied`; scripts are refused here, the lane was divided; see `lanes.fence`.

    Never expires: the number of a lane is not used again. Owner: `relaning`.
    """
    return f"{lane_prefix(lane)}shut"


def keeper(lane: int) -> str:
    """string: the worker that holds this lane's duties; a lease of 3 s."""
    return f"{lane_prefix(lane)}keeper"


def reply(lane: int, script: str, caller: str) -> str:
    """string: token and packed answer of this caller's last run of a script; 10 minutes."""
    return f"{lane_prefix(lane)}reply:{script}:{caller}"


def audience(lane: int, app: str, name: str, bucket: int) -> str:
    """set: the openids of an audience in one bucket.

    A name that begins with ``~``: built beside, to replace one; this and the next two, 1 day. Or a
    retry's recipients (`frozen`): its life and a day; or those whose accepts were imported
    (`exports`): 30 days. One that begins with ``!``: those who are sent nothing for a reason
    (`producers.suppressions`).
    """
    return f"{lane_prefix(lane)}audience:{app}:{name}:{bucket}"


def rows(lane: int, app: str, name: str) -> str:
    """hash: bucket → its rows, packed; see lanes/rows.lua. Under a name of `ROWS_NAME`.

    While they are loaded 2 hours, then as their broadcast, and a day after its end; each row until
    its recipient was delivered. `audience_size` and `audience_buckets` go with it.
    """
    return f"{lane_prefix(lane)}rows:{app}:{name}"


def audience_buckets(lane: int, app: str, name: str) -> str:
    """bitmap: bit b is set when bucket b of the audience may have members."""
    return f"{lane_prefix(lane)}buckets:{app}:{name}"


def audience_dropped(lane: int, app: str, name: str) -> str:
    """string: 1, of an audience that was deleted in this lane; 8 days, or until it is made anew.

    A broadcast lives 7 days; see `audiences.bucket`.
    """
    return f"{lane_prefix(lane)}dropped:{app}:{name}"


def audience_size(lane: int, app: str, name: str) -> str:
    """string: members of the audience in this lane."""
    return f"{lane_prefix(lane)}size:{app}:{name}"


def worker_apps(worker: str) -> str:
    """string: the apps in a worker's settings, by blanks; 1 minute. Owner: the worker's beat.

    The last word is ``#`` and their digest: an earlier version takes it for one more app.
    """
    return f"{{wxb:workers}}:apps:{worker}"


APPIDS: Final = "wxb:appids"
"""hash: alias → appid of the mini-program whose users it stands for. Owner: `care.appids`."""

WEBS: Final = "{wxb:workers}:webs"
"""zset: ``process digest`` of each web process that follows an apps' file → when it last said so.

Server epoch ms; the digest is that of its apps. 1 minute. Owner: the roster.
"""


LACKING: Final = "no token: "
"""How a reason begins why a worker has no access token of an app; the errcode follows."""


def closed_gates(worker: str) -> str:
    """hash: app → ``since_ms reason`` of the gates that a worker closed by itself; 10 s.

    A reason that begins with `LACKING`: nothing is sent, for want of an access token.
    Owner: the worker's beat, while there are any.
    """
    return f"{{wxb:workers}}:closed:{worker}"


def upload_flood(lane: int, app: str, openid: str) -> str:
    """string: until when (ms) the uploads of a user fill their limit; until then. Owner: limits."""
    return f"{lane_prefix(lane)}flood:upload:{app}:{openid}"


def permit_flood(lane: int, app: str, openid: str) -> str:
    """string: as `upload_flood`, of the permits that a user files; at most a day."""
    return f"{lane_prefix(lane)}flood:permit:{app}:{openid}"


def app_reply(app: str, script: str, caller: str) -> str:
    """string: as `reply`, of a script that works on an app's own keys; 10 minutes."""
    return f"{app_prefix(app)}reply:{script}:{caller}"


def login_flood(app: str, caller: str = "") -> str:
    """string: as `upload_flood`, of the logins of an address, whose digest the caller is.

    Also of a user known from an earlier ticket; '' is the app's own, all callers' together.
    """
    return f"{app_prefix(app)}flood:login:{caller}"


def refused_code_flood(app: str, caller: str = "") -> str:
    """string: as `login_flood`, of the login codes that WeChat refused, or has not answered yet."""
    return f"{app_prefix(app)}flood:code:{caller}"


def home(lane: int, broadcast: str) -> str:
    """hash: a broadcast: spec, state, generation, times, reason. At its home lane; 22 days."""
    return f"{lane_prefix(lane)}home:{broadcast}"


def app_prefix(app: str) -> str:
    """Return what every key of an app's own slot starts with."""
    return f"{PREFIX}:{{app:{app}}}:"


def audiences(app: str) -> str:
    """hash: audience name → when it was first imported (ms)."""
    return f"{app_prefix(app)}audiences"


def audience_turn(app: str, name: str) -> str:
    """string: the call that puts an audience's new sets in place; a lease of a minute."""
    return f"{app_prefix(app)}turn:{name}"


def frozen(app: str) -> str:
    """zset: names of retries' recipients, and of rows → until when they are kept (ms); until then.

    Also of those whose accepts were imported. So that forgetting a user finds them.
    """
    return f"{app_prefix(app)}frozen"


def active(app: str) -> str:
    """zset: ids of broadcasts that have not ended → created (ms); the keeper's net."""
    return f"{app_prefix(app)}active"


def history(app: str) -> str:
    """zset: ids of all broadcasts → created (ms). Trimmed to the retention."""
    return f"{app_prefix(app)}history"


def idempotency(app: str, key: str) -> str:
    """string: ``broadcast_id digest`` of what the key created; 7 days."""
    return f"{app_prefix(app)}key:{key}"


def limiter(app: str) -> str:
    """hash: next_us, blocked_until_ms, level, limit, sent, counts of day and minute, a live rate.

    2 days after last use; for good while it holds a rate.
    """
    return f"{app_prefix(app)}limiter"


def quotas(app: str) -> str:
    """hash: CHANNEL → ``limit used remain per per_s at_ms``, WeChat's word on an app's quota.

    ``error:CHANNEL`` → ``at_ms text``; ``asked:WHAT`` → ms; ``asks`` → ``day count``. 2 days after
    the last. Owner: `workers.quotas`.
    """
    return f"{app_prefix(app)}quotas"


def diagnoses(app: str) -> str:
    """hash: errcode that is not in the table → ``at_ms rid text``, what WeChat said of a refusal.

    ``asked:ERRCODE`` → ms; ``asks`` → ``day count``. 2 days after the last. Owner: as `quotas`.
    """
    return f"{app_prefix(app)}diagnoses"


def broadcast_limiter(app: str, broadcast: str) -> str:
    """hash: next_us of a broadcast with a rate of its own; 1 hour after last use."""
    return f"{app_prefix(app)}limiter:{broadcast}"


def limiter_reply(app: str, worker: str) -> str:
    """string: token and packed answer of this worker's last reserve; 10 minutes."""
    return f"{app_prefix(app)}reply:reserve:{worker}"


def inbox(app: str) -> str:
    """list: ``arrived_ms push`` of WeChat's pushes that wait to be acted on, the oldest left.

    7 days after the last one came.
    """
    return f"{app_prefix(app)}inbox"


def inbox_lease(app: str) -> str:
    """string: who acts on the app's inbox; a lease of 10 s."""
    return f"{app_prefix(app)}inbox:lease"


def inbox_counts(app: str) -> str:
    """hash: pushes so far by what they were (``stored``, ``dropped``, ``full``); 30 days."""
    return f"{app_prefix(app)}inbox:counts"


def push_seen(app: str, signature: str) -> str:
    """string: digest of the body that came with this signature; twice `callback_max_age`."""
    return f"{app_prefix(app)}push:{signature}"


def token(app: str) -> str:
    """string: the access token, encrypted, with its expiry; until it expires."""
    return f"{app_prefix(app)}token"


def token_lock(app: str) -> str:
    """string: the worker that is refreshing the token; a lease of 15 s."""
    return f"{app_prefix(app)}token:lock"


def web_answer(app: str, key: str) -> str:
    """string: who answers a request with this Idempotency-Key, or the answer; a lease, then 24 h.

    The key is a digest of route, API key and Idempotency-Key.
    """
    return f"{app_prefix(app)}answer:{key}"


def web_sessions(key: str) -> str:
    """zset: digests of the sessions that an API key opened at the console → end (ms).

    Bounded; until the last of them ends.
    """
    return f"{PREFIX}:{{keys}}:sessions:{key}"


def key_limit(key: str) -> str:
    """string: as `upload_flood`, of an API key's requests. ``limit`` was the same in µs."""
    return f"{PREFIX}:{{keys}}:limit_ms:{key}"


def series(app: str, name: str) -> str:
    """hash: a series: spec, cron, zone, state, next_ms, what its last tick made. Until deleted."""
    return f"{{wxb:series}}:of:{app}:{name}"


def series_names(app: str) -> str:
    """set: names of an app's series."""
    return f"{{wxb:series}}:names:{app}"


def templates(app: str, channel: str) -> str:
    """hash: an app's templates of a channel as WeChat listed them, and how reading them went.

    ``list`` (JSON, at most 256 kB), ``read_at_ms``, ``trouble``, ``wanted_at_ms``, ``next_ms``, the
    lease of who reads it, the day's calls. 30 days after it was wanted or read last.
    """
    return f"{{wxb:templates}}:of:{app}:{channel}"


def key_limit_reply(caller: str) -> str:
    """string: token and packed answer of this caller's last lease of requests; 10 minutes."""
    return f"{PREFIX}:{{keys}}:reply:{caller}"


LASTING: Final[dict[str | Callable[..., str], str]] = {
    DEPLOYMENT: "its lanes and buckets: where all that it has lies",
    SERVER: "known again after any rest, however long",
    SERVERS: "known again after any rest, however long",
    SEEN: "known again after any rest, however long",
    APPIDS: "what is stored under an alias may be older than any worker",
    API_KEYS: "a key holds until it is revoked",
    WORKERS: "the beat removes the dead, and the last to leave itself",
    ledger: "sums of all time: they are checked against the stock",
    stock: "permits that are to be had; past hours are trimmed",
    fence: "a fence token may never come again",
    shut: "a process that stood still may go on after any time",
    subscriptions: "WeChat gives accepts no end; goes with the last of them",
    audience: "members stay until they are removed",
    audience_buckets: "goes with the audience",
    audience_size: "goes with the audience",
    audiences: "goes with the audiences",
    active: "what has not ended; a broadcast leaves it at its end, after 7 days at most",
    ring: "what may be taken; its last broadcast takes it away",
    priority_ring: "what may be taken; its last broadcast takes it away",
    busy: "the apps of the rings",
    due: "what the keeper must look at; empty when there is nothing",
    doing: "what the keeper was given to look at",
    flying: "what may be unanswered; empty when nothing is",
    hooks: "what the apps' settings want of webhooks; an app that wants none is taken out",
    SERIES_DUE: "what is to be made at the next ticks; a paused or deleted series leaves it",
    series: "a series goes on until it is deleted",
    series_names: "the apps' series",
    limiter: "while it holds a rate that was set live",
}
"""The keys that have no TTL, as constants and functions of this module → why. No others.

Dramatiq's own, below `DRAMATIQ_NAMESPACE`, have none either. What is built beside (an audience
whose name begins with ``~``) has one.
"""
