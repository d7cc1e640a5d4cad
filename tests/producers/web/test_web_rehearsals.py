"""Before a broadcast goes out, over HTTP: the dry run."""

from typing import Any

from every_key import every_key
from web_house import BROADCASTS, PERMITS, TEMPLATE, Caller, House

DRY_RUN = f"{BROADCASTS}/dry-run"
KEYS_OWN = ("wxb:{keys}:limit_ms:", "wxb:{keys}:reply:")
"""What each request of an API key leaves: its rate."""

SPEC: dict[str, Any] = {
    "channel": "template",
    "template_id": TEMPLATE,
    "audience": "all",
    "data": "a,b",
}


def give(shop: Caller, people: int = 10) -> None:
    uploads = [{"openid": f"o{n}", "formIds": [f"f{n}"]} for n in range(people)]
    assert shop.post(PERMITS, uploads).status == 200


def test_a_dry_run_answers_with_what_would_become_of_it(
    house: House, shop: Caller, valkey_url: str
) -> None:
    give(shop)
    reader = house.caller("read")
    before = every_key(valkey_url, but=KEYS_OWN)
    got = reader.post(DRY_RUN, {**SPEC, "rate": 2, "expires_in_s": 1})
    assert got.status == 200
    assert (got.json["recipients"], got.json["reachable"], got.json["late"]) == (10, 10, 8)
    assert (got.json["faults"], got.json["eta_s"]) == ([], 5)
    assert every_key(valkey_url, but=KEYS_OWN) == before
    assert shop.get(BROADCASTS).json["broadcasts"] == []


def test_faults_are_told_in_the_answer_not_as_a_problem(shop: Caller) -> None:
    give(shop)
    got = shop.post(DRY_RUN, {**SPEC, "data": {"nonsense": "a"}, "at": "soon", "audience": "vip"})
    assert got.status == 200
    told = " ".join(got.json["faults"])
    assert all(word in told for word in ("nonsense", "soon", "no audience 'vip'"))
    series = shop.post(DRY_RUN, {**SPEC, "every": "0 21 * *", "name": "x"})
    assert "five fields" in series.json["faults"][0]


def test_it_is_asked_like_everything_else(house: House, shop: Caller) -> None:
    assert house.anybody.post(DRY_RUN, SPEC).status == 401
    assert house.caller("collect").post(DRY_RUN, SPEC).status == 403
    assert shop.post(DRY_RUN, {**SPEC, "channel": "smoke"}).kind == "invalid"
    # a typing error makes nothing
    assert shop.post(f"{BROADCASTS}/dryrun", SPEC).status in {404, 405}
    assert shop.post(f"{BROADCASTS}/dry_run", SPEC).status == 404
    assert shop.get(BROADCASTS).json["broadcasts"] == []
