"""Processes that act on the inbox are killed in the middle, again and again."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wechat_pushes import APPID, CHANGE, NOW_S, POPUP, SENT, TOKEN, Desk, choice, push, sent

from producers.care.audit import Auditor
from producers.store import keys

ROOT = Path(__file__).resolve().parents[3]
WORK = """
import threading
from producers import logs, settings, store
from producers.callbacks import Callbacks
logs.silence()
loaded = settings.load()
Callbacks(store.connect(loaded), loaded).run(threading.Event())
"""
USERS = 150


@pytest.mark.timeout(90)
def test_whoever_acts_may_be_killed_at_any_moment(
    open_desk: Callable[..., Desk], valkey_url: str, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    """Each push takes its effect once, in the end, whoever died over it."""
    desk = open_desk()
    for number in range(USERS):
        openid = f"o{number}"
        for query, body in (
            push(POPUP, choice("accept"), choice("accept", "U"), openid=openid, at_s=NOW_S - 9),
            push(CHANGE, choice("reject", "U"), openid=openid, at_s=NOW_S - 5),
            push(SENT, sent(f"9{number}"), openid=openid),
            push(POPUP, choice("accept", "U"), openid=openid, at_s=NOW_S - 2),
        ):
            desk.callbacks.receive("shop", query, body)
    app = f'{{"shop":{{"appid":"{APPID}","secret":"s","callback_token":"{TOKEN}",'
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "WXB_REDIS_URL": valkey_url,
        "WXB_APPS": f'{app}"subscription_source":"events"}}}}',
        "WXB_BUCKETS": str(desk.settings.buckets),
        "WXB_LANES": str(desk.settings.lanes),
    }
    for victim in (7, 31, 58, 103):  # somewhere in the first batches, whatever this machine does
        process = subprocess.Popen([sys.executable, "-c", WORK], env=env, cwd=tmp_path)
        try:
            eventually(lambda v=victim: desk.count("T", f"o{v}"), f"o{victim}'s turn came")
        finally:
            process.kill()
            process.wait(15)
        desk.client.delete(keys.inbox_lease("shop"))  # else the next one waits for its end
    while desk.callbacks.work("shop"):
        pass
    assert desk.callbacks.waiting("shop") == 0
    for number in range(USERS):
        openid = f"o{number}"
        assert (desk.count("T", openid), desk.count("U", openid)) == (1, 1)
        lane = keys.place_of(openid, desk.settings)[0]
        assert len(desk.client.hgetall(keys.receipts(lane, "shop", openid))) == 1
    assert Auditor(desk.client, desk.settings).run().wrong == []
