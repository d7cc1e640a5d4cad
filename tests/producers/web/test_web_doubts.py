"""What waits for an operator's word, and what WeChat's answers mean, over HTTP."""

from shop import Shop
from web_house import BROADCASTS, TEMPLATE, Caller, House


def doubtful(house: House) -> str:
    """Return a broadcast with two recipients in doubt."""
    shop = Shop(house.client, house.settings)
    for openid in ("o1", "o2"):
        shop.give(openid, subscriptions={TEMPLATE: "accept"})
    made = shop.broadcast("subscribe")
    shop.open(made)
    shop.take()
    shop.recover(made)
    return made


def test_doubts_are_listed_and_decided(house: House, shop: Caller) -> None:
    path = f"{BROADCASTS}/{doubtful(house)}/doubts"
    reader = house.caller("read")
    found = reader.get(path).json["doubts"]
    assert {one["openid"] for one in found} == {"o1", "o2"}
    assert all(0 < one["since_ms"] <= one["until_ms"] for one in found)
    assert len(reader.get(f"{path}?limit=1").json["doubts"]) == 1
    assert reader.post(path, {"outcome": "failed"}).status == 403
    assert shop.post(path, {"outcome": "in_doubt"}).kind == "invalid"
    assert house.caller(apps=("cafe",)).get(path.replace("shop", "cafe")).status == 404
    assert shop.post(path, {"outcome": "failed"}).json == {"moved": 2}
    assert shop.post(path, {"outcome": "failed"}).json == {"moved": 0}
    assert shop.get(path.removesuffix("/doubts")).json["outcomes"] == {"failed": 2}


def test_what_was_set_aside_is_replayed(house: House, shop: Caller) -> None:
    staff = Shop(house.client, house.settings)
    staff.give("o1", formId="f1")  # posted twice, it would still arrive once
    made = staff.broadcast()
    path = f"{BROADCASTS}/{made}"
    staff.open(made)
    for _ in range(house.settings.attempts):  # its worker dies, again and again
        assert staff.take()
        staff.recover(made)
    assert shop.get(path).json["aside"] == 1
    assert house.caller("read").post(f"{path}/aside", {"replay": True}).status == 403
    assert shop.post(f"{path}/aside", {}).kind == "invalid"
    assert shop.post(f"{path}/aside", {"replay": True}).json == {"moved": 1}
    assert (shop.get(path).json["aside"], len(staff.take())) == (0, 1)


def test_what_wechat_answers_is_explained(house: House) -> None:
    found = house.caller("read").get("/v1/errcodes").json["errcodes"]
    named = {one["errcode"]: one for one in found}
    assert "has not accepted" in named[43101]["meaning"]
    assert named[43101]["advice"]
    assert house.anybody.get("/v1/errcodes").status == 401
