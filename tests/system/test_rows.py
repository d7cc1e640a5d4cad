"""Rows through real workers: a unit killed in the middle, a pause, and each is told his own."""

from typing import Any

from stage import Stage

from producers.broadcasts.spec import Spec

USERS = 400


def test_each_is_told_his_own_row_through_a_kill_and_a_pause(
    slow_stage: Stage, eventually: Any
) -> None:
    stage = slow_stage
    stage.form_ids(USERS)
    spec = Spec.checked(
        app="shop",
        channel="template",
        template_id=stage.spec().template_id,
        data={"keyword1": "{name}，连续签到 {days} 天", "keyword2": "{{}}"},
        page="pages/streak?user={openid}",
        rows=True,
    )
    rows = [{"openid": f"o{n}", "name": f"张{n}", "days": n} for n in range(USERS)]
    victim, _ = stage.unit(), stage.unit()
    made = stage.broadcasts.create_with_rows(spec, rows).id
    eventually(lambda: stage.accepted > USERS // 8, "some to be sent")
    stage.kill(victim)
    stage.broadcasts.pause(made)
    stage.broadcasts.resume(made)
    status = stage.wait(made, within_s=45)
    assert status.outcomes == {"delivered": USERS}
    assert stage.stats["duplicates"] == 0
    for n in range(USERS):
        (message,) = stage.wechat.received(f"o{n}")
        assert message["data"] == {
            "keyword1": {"value": f"张{n}，连续签到 {n} 天"},
            "keyword2": {"value": "{}"},
        }
        assert message["page"] == f"pages/streak?user=o{n}"
    assert list(stage.client.scan_iter("*:rows:shop:*")) == []
    stage.assert_sound(made, USERS)
