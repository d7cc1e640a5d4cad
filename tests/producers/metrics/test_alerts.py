"""The alerts: each fires for what it is for, in its time, and is quiet otherwise (promtool)."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from promtool import ALERTS, promtool

CASES: Final[dict[str, tuple[dict[str, str], str, str, dict[str, str]]]] = {
    # alert: series → values, a minute each; when it is quiet still; when it fires; its labels
    "WxbroadcastRedisAway": (
        {'wxbroadcast_redis_up{instance="web"}': "1 1 0x9"},
        "2m",
        "4m",
        {"instance": "web"},
    ),
    "WxbroadcastNoWorker": ({'wxbroadcast_workers{instance="a"}': "2 0x9"}, "1m", "3m", {}),
    "WxbroadcastAppBlocked": (
        {
            'wxbroadcast_hindered{app="shop",instance="a"}': "0 1x9",
            'wxbroadcast_hindered{app="club",instance="a"}': "0x9",
        },
        "2m",
        "4m",
        {"app": "shop"},
    ),
    "WxbroadcastLimited": (
        {'wxbroadcast_limit_level{app="shop",instance="u1"}': "0 2x30"},
        "9m",
        "12m",
        {"app": "shop"},
    ),
    "WxbroadcastBroadcastPaused": (
        {
            'wxbroadcast_broadcasts{app="shop",state="paused"}': "0 1x20",
            'wxbroadcast_broadcasts{app="shop",state="running"}': "5x20",
        },
        "5m",
        "7m",
        {"app": "shop"},
    ),
    "WxbroadcastDoubtsRising": (
        {
            'wxbroadcast_answers_total{app="shop",outcome="in_doubt",instance="u1"}': "0+2x30",
            'wxbroadcast_answers_total{app="shop",outcome="delivered",instance="u1"}': "0+900x30",
        },
        "5m",
        "20m",
        {"app": "shop"},
    ),
    "WxbroadcastSetAside": (
        {'wxbroadcast_messages{app="shop",where="aside"}': "0 3x20"},
        "5m",
        "7m",
        {"app": "shop"},
    ),
    "WxbroadcastPermitsExpiring": (
        {
            'wxbroadcast_permit_stock_ending{app="shop",within="24h"}': "900x90",
            'wxbroadcast_permit_stock{app="shop",where="available"}': "3000x90",
            'wxbroadcast_permit_stock_ending{app="club",within="24h"}': "90x90",
            'wxbroadcast_permit_stock{app="club",where="available"}': "100x90",
        },
        "50m",
        "70m",
        {"app": "shop"},
    ),
    "WxbroadcastTokenFailing": (
        {'wxbroadcast_events_total{event="token_refresh_failed",instance="u1"}': "0x10 0+1x30"},
        "9m",
        "25m",
        {},
    ),
    "WxbroadcastWorkersDying": (
        {'wxbroadcast_events_total{event="worker_buried",instance="u1"}': "0x10 0+1x30"},
        "10m",
        "20m",
        {},
    ),
    "WxbroadcastLogsDropped": (
        {'wxbroadcast_log_lines_dropped_total{instance="u1"}': "0x10 0+7x30"},
        "9m",
        "15m",
        {},
    ),
}


@pytest.fixture(scope="module")
def rules() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_each_alert_has_its_case(rules: dict[str, dict[str, Any]]) -> None:
    assert list(rules) == list(CASES)


def test_each_fires_in_its_time(rules: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    tests = []
    for alert, (series, quiet, fires, labels) in CASES.items():
        told = {
            name: text.replace("{{ $labels.app }}", labels.get("app", ""))
            for name, text in rules[alert]["annotations"].items()
        }
        expected = {"exp_labels": {**rules[alert]["labels"], **labels}, "exp_annotations": told}
        tests.append(
            {
                "name": alert,
                "interval": "1m",
                "input_series": [{"series": one, "values": v} for one, v in series.items()],
                "alert_rule_test": [
                    {"eval_time": quiet, "alertname": alert, "exp_alerts": []},
                    {"eval_time": fires, "alertname": alert, "exp_alerts": [expected]},
                ],
            }
        )
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text("utf-8"))
    document = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in promtool("check", "rules", str(tmp_path / "alerts.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "tests.yml"))
