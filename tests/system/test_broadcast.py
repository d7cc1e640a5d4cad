"""The main job, end to end: real worker units by the Procfile's command, the sandbox, a Valkey."""

import dataclasses
import os
import signal
import time
from typing import Any

import pytest
from stage import Stage

from producers.broadcasts.spec import Spec
from producers.logs import events

TEMPLATE = "T" * 43


def template_spec(**changes: Any) -> Spec:
    fields = {
        "app": "shop",
        "channel": "template",
        "template_id": TEMPLATE,
        "data": "a,b,c",
        "audience": "all",
    }
    return Spec.checked(**{**fields, **changes})


def subscribe_spec(**changes: Any) -> Spec:
    return template_spec(
        **{"channel": "subscribe", "data": {"thing1": "签到提醒", "date2": "2026-11-24"}, **changes}
    )


@pytest.mark.cluster
@pytest.mark.parametrize("lanes", [1, 4])
def test_every_recipient_of_a_template_broadcast_ends_in_one_outcome(stage: Stage) -> None:
    stage.form_ids(400, each=2)
    stage.collector.collect("shop", [{"openid": "paid", "prepayId": "wx20261124"}])
    stage.wechat.give(prepay_ids=[{"openid": "paid", "prepay_id": "wx20261124"}])
    members = [f"o{user}".encode() for user in range(500)] + [b"paid"]
    stage.audiences.import_rows("shop", "vip", members)
    for _ in range(2):
        stage.unit()

    first = stage.wait(stage.broadcasts.create(template_spec(audience="vip")).id)

    assert first.state == "finished"
    assert first.outcomes == {"delivered": 401, "no_permit": 100}
    assert stage.accepted == 401
    assert stage.stats["duplicates"] == 0
    assert stage.ledger() == {
        "collected": 803, "spent": 401, "void": 0, "expired": 0, "available": 402, "held": 0,
    }  # fmt: skip
    message = stage.wechat.received("o7")[0]
    assert message["data"] == {
        "keyword1": {"value": "a"}, "keyword2": {"value": "b"}, "keyword3": {"value": "c"},
    }  # fmt: skip


@pytest.mark.cluster
@pytest.mark.parametrize("lanes", [1, 4])
def test_every_recipient_of_a_subscribe_broadcast_ends_in_one_outcome(stage: Stage) -> None:
    stage.accepts(300)
    stage.collector.collect("shop", [{"openid": "left", "subscriptions": {TEMPLATE: "accept"}}] * 2)
    stage.unit()

    status = stage.wait(stage.broadcasts.create(subscribe_spec(page="pages/sign/index")).id)

    assert status.outcomes == {"delivered": 300, "refused": 1}  # `left` took it back at WeChat
    assert status.errcodes == {"43101": 1}
    assert stage.ledger() == {
        "collected": 302, "spent": 300, "void": 2, "expired": 0, "available": 0, "held": 0,
    }  # fmt: skip
    settled = [row for row in stage.lines("message_settled") if row["outcome"] == "delivered"]
    assert all(int(row["msgid"]) > 2**53 for row in settled)


def test_the_permit_that_expires_first_is_spent_first(stage: Stage) -> None:
    now_ms = int(time.time() * 1000)
    uses = [{"formId": f"d{day}", "expire": now_ms + day * 86_400_000} for day in (5, 2, 6)]
    stage.collector.collect("shop", [{"openid": "o1", "formIds": uses}])
    stage.wechat.give(form_ids=[{"openid": "o1", "form_id": f"d{day}"} for day in (5, 2, 6)])
    stage.unit()

    stage.wait(stage.broadcasts.create(template_spec()).id)

    assert [row["form_id"] for row in stage.wechat.received("o1")] == ["d2"]


@pytest.mark.cluster
def test_a_dead_permit_gives_way_to_the_next_one(stage: Stage) -> None:
    stage.form_ids(30, each=2, given=False)
    stage.wechat.give(
        form_ids=[{"openid": f"o{user}", "form_id": f"f{user}x1"} for user in range(1, 30)]
    )
    stage.wechat.give(
        form_ids=[{"openid": "o0", "form_id": "f0x0"}]
    )  # one delivery opens the canary
    stage.unit()

    status = stage.wait(stage.broadcasts.create(template_spec()).id)

    assert status.outcomes == {"delivered": 30}
    assert stage.ledger()["void"] == status.errcodes.get("41028", 0)
    assert stage.ledger()["held"] == 0


@pytest.mark.cluster
def test_a_unit_killed_in_the_middle_costs_nobody_anything(slow_stage: Stage, eventually) -> None:
    stage = slow_stage
    stage.form_ids(1500)
    stage.wechat.configure(latency={"fixed_ms": 50})
    victim, _ = stage.unit(), stage.unit()
    broadcast = stage.broadcasts.create(template_spec()).id
    eventually(lambda: stage.accepted > 300, "300 messages were accepted")

    stage.kill(victim)
    status = stage.wait(broadcast)

    assert status.outcomes == {"delivered": 1500}
    assert stage.stats["duplicates"] == 0
    assert stage.ledger()["spent"] == 1500
    assert stage.ledger()["held"] == 0


@pytest.mark.parametrize(
    "tell",
    [os.kill, os.killpg],
    ids=["its master", "its whole group, as systemd and a terminal do"],
)
def test_a_unit_told_to_stop_leaves_nothing_in_doubt(slow_stage: Stage, eventually, tell) -> None:
    stage = slow_stage
    stage.accepts(1200)
    stage.wechat.configure(latency={"fixed_ms": 300})
    first = stage.unit()
    broadcast = stage.broadcasts.create(subscribe_spec()).id
    eventually(lambda: stage.accepted > 200, "200 messages were accepted")

    stage.unit()
    tell(first.pid, signal.SIGTERM)
    assert first.wait(15) == 0
    status = stage.wait(broadcast)

    assert first.returncode == 0
    assert stage.lines("worker_stopped")[0]["in_flight"] == 0
    assert status.outcomes == {"delivered": 1200}


@pytest.mark.cluster
def test_a_wrong_template_aborts_after_at_most_k_permits_and_hands_them_back(stage: Stage) -> None:
    stage.form_ids(200)
    stage.wechat.configure(templates=[{"template_id": "other", "channel": "template"}])
    # whoever can read the list refuses it before it is sent (producers/templates)
    stage.wechat.fail({"api": "wxopen/template/list", "action": "errcode", "errcode": 48001})
    stage.unit()

    status = stage.wait(stage.broadcasts.create(template_spec()).id)

    assert (status.state, status.errcode) == ("aborted", 40037)
    assert status.outcomes == {"cancelled": 200}
    assert stage.stats["apis"]["/cgi-bin/message/wxopen/template/send"]["requests"] <= 10
    assert stage.ledger()["available"] == 200


def test_a_good_template_that_wechat_calls_unknown_for_a_while_pauses_and_loses_nothing(
    stage: Stage, eventually
) -> None:
    stage.form_ids(200)
    stage.wechat.configure(templates=[{"template_id": TEMPLATE, "channel": "template"}])
    send = "/cgi-bin/message/wxopen/template/send"
    stage.wechat.fail({"api": send, "action": "errcode", "errcode": 40037})
    stage.unit()

    broadcast = stage.broadcasts.create(template_spec()).id
    status = eventually(
        lambda: (s := stage.status(broadcast)).state == "paused" and not s.in_flight and s,
        "the broadcast is paused",
    )

    assert status.errcode == 40037
    assert "its list has it" in status.reason
    assert stage.stats["apis"][send]["requests"] <= 10
    assert stage.ledger()["available"] == 200
    stage.wechat.fail()
    stage.broadcasts.resume(broadcast)
    assert stage.wait(broadcast).outcomes == {"delivered": 200}


def test_a_wrong_appid_pauses_having_touched_one_permit_per_recipient(
    stage: Stage, eventually
) -> None:
    stage.form_ids(100, each=3, given=False)
    stage.wechat.configure(known_openids_only=True)
    stage.unit()

    broadcast = stage.broadcasts.create(template_spec()).id
    status = eventually(
        lambda: (s := stage.status(broadcast)).state == "paused" and not s.in_flight and s,
        "the broadcast is paused",
    )

    assert status.errcode == 40003
    assert status.outcomes == {"invalid_user": 10}
    assert stage.ledger()["void"] == 10


@pytest.mark.timeout(60)
@pytest.mark.parametrize("users", [30, 2000])
@pytest.mark.parametrize("errcode", [40003, 41028, 43101])
def test_a_wrong_appid_touches_k_permits_over_all_lanes_together(
    stages, eventually, errcode, users
) -> None:
    stage = stages(lanes=8, canary=5)
    stage.wechat.configure(known_openids_only=errcode == 40003)
    if errcode == 43101:
        for _ in range(2):
            stage.accepts(users, given=False)
        spec = subscribe_spec()
    else:
        stage.form_ids(users, each=2, given=False)
        spec = template_spec()
    stage.unit()

    broadcast = stage.broadcasts.create(spec).id
    status = eventually(
        lambda: (s := stage.status(broadcast)).state != "running" and not s.in_flight and s,
        "the broadcast stopped",
    )

    assert (status.state, status.errcode) == ("paused", errcode)
    ledger = stage.ledger()
    assert (ledger["void"], ledger["available"]) == (5, 2 * users - 5)
    assert sum(status.errcodes.values()) == 5


def test_a_lost_answer_is_repeated_with_the_same_form_id_and_counts_once(stage: Stage) -> None:
    """Ten in a row have the worker probe; who is lost twice counts once all the same."""
    stage.form_ids(60)
    stage.wechat.fail({"api": "template/send", "action": "cut_after", "skip": 10, "count": 15})
    stage.unit()

    status = stage.wait(stage.broadcasts.create(template_spec()).id)

    assert status.outcomes == {"delivered": 60}
    assert set(status.errcodes) == {"41029"}
    assert 10 <= status.errcodes["41029"] <= 15
    assert stage.stats["duplicates"] == 0


def test_a_lost_answer_to_a_subscribe_send_is_in_doubt_and_never_repeated(stage: Stage) -> None:
    stage.accepts(60)
    stage.wechat.fail({"api": "subscribe/send", "action": "cut_after", "skip": 10, "count": 15})
    stage.unit()

    status = stage.wait(stage.broadcasts.create(subscribe_spec()).id)

    assert status.outcomes == {"delivered": 45, "in_doubt": 15}
    assert stage.accepted == 60
    assert stage.ledger()["spent"] == 60


@pytest.mark.timeout(60)
def test_a_used_up_quota_holds_everyone_back_and_burns_nothing(slow_stage: Stage) -> None:
    """A second's: a minute's that is used up after 100 sends is taken for 100 a minute."""
    stage = slow_stage
    stage.form_ids(300)
    stage.wechat.fail(
        {"api": "template/send", "action": "errcode", "errcode": 44990, "skip": 100, "count": 3}
    )
    for _ in range(2):
        stage.unit()

    status = stage.wait(stage.broadcasts.create(template_spec()).id, within_s=45)

    assert status.outcomes == {"delivered": 300}
    assert stage.ledger()["spent"] == 300
    assert stage.lines("limit_hit")
    assert stage.lines("limit_lifted")


@pytest.mark.cluster
def test_a_token_revoked_in_the_middle_is_refreshed_once_by_all(
    slow_stage: Stage, eventually
) -> None:
    stage = slow_stage
    stage.form_ids(900)
    for _ in range(2):
        stage.unit()
    broadcast = stage.broadcasts.create(template_spec()).id
    eventually(lambda: stage.accepted > 200, "200 messages were accepted")

    stage.revoke_tokens()
    status = stage.wait(broadcast)

    assert status.outcomes == {"delivered": 900}
    assert stage.stats["apis"]["/cgi-bin/stable_token"]["requests"] == 2


@pytest.mark.cluster
def test_pause_holds_resume_goes_on_and_cancel_counts_the_rest(
    slow_stage: Stage, eventually
) -> None:
    stage = slow_stage
    stage.form_ids(2000)
    for _ in range(2):
        stage.unit()
    broadcast = stage.broadcasts.create(template_spec()).id
    eventually(lambda: stage.accepted > 150, "150 messages were accepted")

    stage.broadcasts.pause(broadcast)
    eventually(lambda: not stage.status(broadcast).in_flight, "nothing is in flight")
    held = stage.accepted
    assert stage.status(broadcast).settled == held

    stage.broadcasts.resume(broadcast)
    eventually(lambda: stage.accepted > held + 150, "it went on")
    assert stage.stats["duplicates"] == 0

    stage.broadcasts.cancel(broadcast)
    status = stage.wait(broadcast)
    assert status.state == "cancelled"
    assert sum(status.outcomes.values()) == status.total == 2000
    assert status.outcomes["delivered"] == stage.accepted
    assert stage.ledger()["held"] == 0
    assert stage.ledger()["available"] == status.outcomes["cancelled"]


@pytest.mark.cluster
def test_an_expired_broadcast_counts_the_rest_as_late(slow_stage: Stage) -> None:
    from datetime import timedelta  # noqa: PLC0415

    stage = slow_stage
    stage.form_ids(3000)
    stage.unit()

    spec = template_spec(expires_in=timedelta(seconds=2), rate=100)
    status = stage.wait(stage.broadcasts.create(spec).id)

    assert status.state == "finished"
    assert status.outcomes["delivered"] + status.outcomes["late"] == 3000
    assert status.outcomes["delivered"] == stage.accepted
    assert stage.ledger()["available"] == status.outcomes["late"]


@pytest.mark.cluster
def test_two_broadcasts_take_turns_and_never_meet_at_one_user(slow_stage: Stage) -> None:
    stage = slow_stage
    stage.form_ids(150, each=2)
    stage.wechat.configure(latency={"fixed_ms": 80})
    for _ in range(2):
        stage.unit()

    ids = [stage.broadcasts.create(template_spec(data=f"{n},b")).id for n in range(2)]
    for broadcast in ids:
        assert stage.wait(broadcast).outcomes == {"delivered": 150}

    assert stage.stats["by_errcode"].get("43108", 0) == 0
    assert stage.ledger()["spent"] == 300


def test_every_log_line_is_in_the_catalogue_and_holds_no_secret(stage: Stage) -> None:
    stage.form_ids(50)
    unit = stage.unit()
    stage.wait(stage.broadcasts.create(template_spec()).id)
    stage.kill(unit, signal.SIGTERM)
    unit.wait(15)

    models = {model.name(): model for model in events.catalogue()}
    head = {"event", "schema", "time", "level", "process", "dropped_lines"}
    raw = stage.logs[0].read_text()
    assert stage.lines("message_settled")
    for line in stage.lines():
        fields = {field.name for field in dataclasses.fields(models[line["event"]])}
        assert set(line) - head == fields, line
    assert "shop-secret" not in raw
    assert "access_token" not in raw
    assert "f7x0" not in raw, "a whole permit is in the log"


def test_a_worker_without_settings_ends_and_says_what_to_set(tmp_path) -> None:
    import os  # noqa: PLC0415
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    command = [
        str(Path(sys.executable).parent / "dramatiq"),
        "workers",
        "-p",
        "1",
        "--skip-logging",
    ]
    env = {"PATH": os.environ["PATH"], "WXB_APPS": '{"shop": {"appid": "wx1"}}'}
    ended = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=25, check=False
    )

    assert ended.returncode != 0
    assert "WXB_REDIS_URL" in ended.stderr
    assert "WXB_APPS__SHOP__SECRET" in ended.stderr
