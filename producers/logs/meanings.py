"""Meanings: what each field of a line says, and in which unit; a name means the same everywhere.

Where an event's field of that name says something of its own, it stands as ``event.field``.
"""

from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """What a field says, and its unit: '' for what has none."""

    text: str
    unit: str = ""


HEAD: Final[dict[str, Meaning]] = {
    "event": Meaning("what happened: a name of the catalogue"),
    "schema": Meaning("version of the catalogue: within one, fields are only added"),
    "time": Meaning("when, UTC", "ISO 8601, ms"),
    "level": Meaning("debug, info, warning, error or critical"),
    "process": Meaning("who wrote the line, for instance worker-4711"),
    "dropped_lines": Meaning("lines before this one that a slow reader cost", "lines"),
}

MEANINGS: Final[dict[str, Meaning]] = {
    "action": Meaning("settled, swapped, delayed, kept, requeued or stale: see the event"),
    "added": Meaning("openids that were put on it", "openids"),
    "after": Meaning("the new one; 0: unlimited", "sends/s"),
    "app": Meaning("alias of the app, a key of WXB_APPS"),
    "api_key_created.apps": Meaning("aliases of the apps that it may act for, with commas; *: all"),
    "worker_started.apps": Meaning("apps that it knows", "apps"),
    "attempt": Meaning("its so many-th; the first is 1"),
    "attempts": Meaning("posts of this webhook so far"),
    "audience": Meaning("name of the audience, or the expression"),
    "audience_size": Meaning("its members at that time", "openids"),
    "audiences": Meaning("audiences that the user was a member of"),
    "before": Meaning("the old one; 0: unlimited", "sends/s"),
    "broadcast": Meaning("id of the broadcast; m…: what carries a day's single messages"),
    "broadcasts": Meaning("broadcasts that run"),
    "bytes_in": Meaning("of the request's body", "bytes"),
    "change": Meaning("created, paused, resumed or deleted"),
    "channel": Meaning("template or subscribe"),
    "closed_ms": Meaning("how long it was closed", "ms"),
    "closes_at_ms": Meaning("when the window closes", "epoch ms"),
    "created_at_ms": Meaning("when WeChat made it", "epoch ms"),
    "dead_worker": Meaning("id of the worker that died"),
    "dropped": Meaning("messages that waited and were taken back"),
    "during": Meaning("what was being done"),
    "duty": Meaning("name of the duty"),
    "errcode": Meaning("WeChat's errcode; 0: none"),
    "errcodes": Meaning("errcode → answers", "answers"),
    "errmsg": Meaning("WeChat's errmsg, redacted"),
    "error": Meaning("what went wrong, in words, redacted"),
    "evicted": Meaning("uses that made room: a user's oldest beyond the cap", "uses"),
    "exception": Meaning("the traceback, redacted"),
    "exit_code": Meaning("of the process; negative: the signal"),
    "expires_in_s": Meaning("how long it lives, as WeChat says", "s"),
    "forced": Meaning("asked for although the old one had not ended: WeChat refused it"),
    "generation": Meaning("number of the change, counted by broadcast"),
    "given": Meaning("accepts that counted"),
    "host": Meaning("address that it listens at"),
    "in_doubt": Meaning("perhaps sent: nobody knows", "messages"),
    "in_flight": Meaning("messages in hand, or the most that may be", "messages"),
    "in_hands": Meaning("messages that a worker has in hand: settled by their answer", "messages"),
    "items": Meaning("choices in it"),
    "key": Meaning("id of the API key, never the key; ticket: a phone's; '': none"),
    "key_name": Meaning("what the key is called"),
    "known": Meaning("those that were counted before"),
    "lane": Meaning("number of the lane in Redis; -1: of none"),
    "lanes": Meaning("lanes of the deployment"),
    "latency_ms": Meaning("from the request to its answer", "ms"),
    "left_out": Meaning("lines of this kind that were not written before it", "lines"),
    "line": Meaning("event of the line that was lost"),
    "logger": Meaning("name of the library's logger"),
    "members": Meaning("openids that it had", "openids"),
    "message": Meaning("what the library said, redacted"),
    "method": Meaning("of HTTP"),
    "move": Meaning("what was done with it: see the event"),
    "msgid": Meaning("WeChat's id of the message, or ''"),
    "new": Meaning("uses that were not known before", "uses"),
    "next_at_ms": Meaning("its next tick; 0: none", "epoch ms"),
    "note": Meaning("why there is no broadcast, or ''"),
    "openid": Meaning("the user, as this app knows them"),
    "opens_at_ms": Meaning("when the window opens", "epoch ms"),
    "out": Meaning("true: nothing more; false: messages again"),
    "outcome": Meaning("the final word on the recipient, or ''"),
    "broadcast_counted.outcomes": Meaning("outcome → recipients", "recipients"),
    "user_forgotten.outcomes": Meaning("outcomes of the user that were removed"),
    "part": Meaning("which part of the process"),
    "paused": Meaning("running broadcasts wait for `resume --after-restore`"),
    "permit_kind": Meaning("form_id, prepay_id or subscription"),
    "pid": Meaning("of the process"),
    "port": Meaning("that it listens at"),
    "processor": Meaning("name of the application's processor"),
    "push": Meaning("WeChat's event, or the kind of message"),
    "rate": Meaning("requests that the key may make", "requests/s"),
    "reason": Meaning("why, in words; a reschedule: the new start"),
    "recipients": Meaning("whom it is for", "openids"),
    "refused": Meaning("items that were refused at the door"),
    "remote": Meaning("address of who asked"),
    "removed": Meaning("openids that were taken off it", "openids"),
    "request_id": Meaning("id of the request, as its answer's header says"),
    "requests": Meaning("requests that run, or were cut off"),
    "restarts": Meaning("times that the unit was started again"),
    "result": Meaning("what the receipt changed"),
    "message_settled.resumed": Meaning("an earlier attempt may have arrived"),
    "messages_recovered.resumed": Meaning("messages that go on as perhaps sent", "messages"),
    "retry_for": Meaning("outcomes, and errcodes if they were named"),
    "retry_of": Meaning("id of the broadcast whose recipients they were"),
    "rid": Meaning("WeChat's id of its answer, or ''"),
    "root": Meaning("id of the first broadcast of the family"),
    "route": Meaning("the path as the OpenAPI document has it"),
    "sample": Meaning("share of such lines that is written: each stands for 1 / sample"),
    "scopes": Meaning("what the key may do, with commas"),
    "seconds": Meaning("how long it took", "s"),
    "series": Meaning("name of the series"),
    "server": Meaning("Redis's run_id and role"),
    "set_aside": Meaning("messages that outlived their workers too often", "messages"),
    "silent_ms": Meaning("how long nothing was heard", "ms"),
    "source": Meaning("stable, classic or http: where tokens come from"),
    "starts_at_ms": Meaning("when it starts; 0: at once", "epoch ms"),
    "state": Meaning("state of the broadcast"),
    "status": Meaning("of the HTTP answer; 0: none came"),
    "receipt_settled.status": Meaning("WeChat's word on the message"),
    "strikes": Meaning("limit errors in a row"),
    "template_id": Meaning("WeChat's id of the template"),
    "tick_at_ms": Meaning("the tick", "epoch ms"),
    "total": Meaning("its recipients", "recipients"),
    "trace": Meaning("the traceback, redacted"),
    "type": Meaning("of the webhook, for instance broadcast.finished"),
    "unit": Meaning("name of the Procfile's line"),
    "unsent": Meaning("messages that were surely not sent", "messages"),
    "unsure": Meaning("messages that were perhaps sent", "messages"),
    "uses": Meaning("uses of permits", "uses"),
    "wait_ms": Meaning("until it is tried again", "ms"),
    "webhook": Meaning("id of the event, the same however often it is posted"),
    "webhooks": Meaning("dead letters that are posted again"),
    "withdrawn": Meaning("templates whose earlier accepts became void"),
    "worker": Meaning("id of the worker that wrote it"),
}


def meaning_of(event: str, field: str) -> Meaning:
    """Return what a field of an event says.

    Raises:
        KeyError: nobody wrote it down.
    """
    return HEAD.get(field) or MEANINGS.get(f"{event}.{field}") or MEANINGS[field]
