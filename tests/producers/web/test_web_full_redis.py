"""Redis is full: over HTTP, too, one looks, stops and forgets; what would be stored is refused."""

from own_valkey import own_valkey
from web_house import opened

from producers import store

SPEC = {
    "channel": "subscribe",
    "template_id": "T",
    "audience": "all",
    "data": {"thing1": "a"},
}


def test_whoever_has_a_key_looks_and_stops_on_a_full_redis() -> None:
    with own_valkey() as valkey, opened(valkey.settings) as house:
        store.check_layout(valkey.client, valkey.settings)
        caller = house.master()
        upload = [{"openid": "oA", "subscriptions": {"T": "accept"}}]
        assert caller.post("/v1/apps/shop/permits", upload).status == 200
        created = caller.post("/v1/apps/shop/broadcasts", SPEC)
        broadcast = f"/v1/apps/shop/broadcasts/{created.json['id']}"
        valkey.client.config_set("maxmemory", "1mb")

        assert house.anybody.get("/readyz").status == 200
        assert caller.get(broadcast).json["state"] == "running"
        assert caller.get("/v1/apps/shop/broadcasts").status == 200
        refused = caller.post("/v1/apps/shop/permits", upload)
        assert refused.status == 503
        assert caller.post(f"{broadcast}/cancel").json["state"] == "cancelled"
        assert caller("DELETE", "/v1/apps/shop/users/oA").status == 200
