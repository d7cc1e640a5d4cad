"""GET /metrics: figures for Prometheus, of the apps that a key is for."""

from web_house import House


def test_a_key_sees_the_figures_of_its_apps_alone(house: House) -> None:
    got = house.caller("read").get("/metrics")
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/plain; version=")
    text = got.body.decode()
    assert 'wxbroadcast_broadcasts{app="shop",state="running"} 0.0' in text
    assert "cafe" not in text
    assert "wxbroadcast_events_total" not in text  # of the process, which serves other apps too
    everything = house.caller("read", apps=("*",)).get("/metrics").body.decode()
    assert 'app="cafe"' in everything
    assert 'wxbroadcast_events_total{event="api_key_created"' in everything


def test_nobody_else_sees_any(house: House) -> None:
    assert house.anybody.get("/metrics").status == 401
    assert house.caller("collect", "send").get("/metrics").status == 403
