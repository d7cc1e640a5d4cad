"""Log lines that anybody can cause: so many a second, and a count of the others."""

from pathlib import Path

import pytest
from log_lines import recorded
from web_house import PERMITS, House

from producers.logs import line_quota
from producers.logs.line_quota import MOST, LineQuota

ASKED = 60


@pytest.fixture(autouse=True)
def _few_lines(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Five a second: fewer than even a busy machine answers."""
    if "house" in request.fixturenames:
        monkeypatch.setattr(line_quota, "MOST", 5)


def test_a_flood_without_a_key_leaves_few_lines_and_a_count(house: House, tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        for _ in range(ASKED):
            house.anybody.get("/nowhere")
        known = house.caller().get(f"{PERMITS}/forecast?channel=template")
    lines = [line for line in read() if line["event"] == "request_answered"]
    assert lines[-1]["request_id"] == known.headers["x-request-id"], "whoever has a key is told"
    strangers = [line for line in lines if not line["key"]]
    assert len(strangers) + sum(line["left_out"] for line in lines) == ASKED
    assert len(strangers) < ASKED


def test_forged_pushes_are_told_at_a_bounded_rate(house: House, tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        for number in range(ASKED):
            query = f"timestamp={number}&nonce=n&signature=s"
            house.anybody.post(f"/wechat/shop?{query}", b"{}", "application/json")
    lines = [line for line in read() if line["event"] == "push_refused"]
    assert 0 < len(lines) < ASKED


def test_a_quota_fills_again() -> None:
    quota = LineQuota()
    assert [quota.admits() for _ in range(MOST + 1)] == [True] * MOST + [False]
    quota._at -= 0.1
    assert quota.admits()
    assert (quota.take_left_out(), quota.take_left_out()) == (1, 0)
