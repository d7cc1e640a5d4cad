"""The suppression list over HTTP: imported, counted, taken off; and users who opt out and in."""

from typing import Any

from web_house import Caller, House

from producers.access.tickets import Tickets

LIST = "/v1/apps/shop/suppressions"
NONE = {"imported": 0, "opted_out": 0, "invalid": 0, "forgotten": 0}


def test_openids_are_put_on_the_list_and_taken_off_it(shop: Caller) -> None:
    assert shop("PUT", LIST, b"oA\noB\n", "text/plain").json["added"] == 2
    assert shop.post(f"{LIST}/members", {"openids": ["oB", "oC"]}).json["added"] == 1
    assert shop.get(LIST).json == {**NONE, "imported": 3}
    assert shop.get("/v1/apps/shop/users/oC").json["suppressed"] == ["imported"]
    got = shop.post(f"{LIST}/members/remove", {"openids": ["oC", "oD", "no openid"]}).json
    assert (got["removed"], got["unknown"], got["listed"][0]["row"]) == (1, 1, 3)
    assert shop("PUT", LIST, {"openids": ["oE"]}).json["removed"] == 2
    assert shop.get(LIST).json == {**NONE, "imported": 1}
    refused = shop("PUT", LIST, b"openid\n", "text/plain")
    assert (refused.status, "no row" in str(refused.json)) == (422, True)
    assert shop("PUT", LIST, {"openids": []}).status == 422
    assert shop.get(LIST).json == {**NONE, "imported": 1}
    emptied = shop("PUT", f"{LIST}?allow_empty=true", b"openid\n", "text/plain")
    assert emptied.json["removed"] == 1
    assert shop.get(LIST).json == NONE


def test_a_backend_opts_a_user_out_and_in(shop: Caller) -> None:
    where = "/v1/apps/shop/users/oA/opt-in"
    assert shop("DELETE", where).json == {"out": True}
    assert shop.get(LIST).json == {**NONE, "opted_out": 1}
    assert shop("PUT", where).json == {"out": False}
    assert shop.get(LIST).json == NONE


def test_a_phone_opts_its_own_user_out_and_in_and_nobody_else(house: House, shop: Caller) -> None:
    now_s, _ = house.client.time()
    phone = Caller(house.port, Tickets(house.settings).sign("shop", "oA", now_s + 600))
    where = "/v1/apps/shop/opt-in"
    assert phone("DELETE", where).json == {"out": True}
    assert shop.get("/v1/apps/shop/users/oA").json["suppressed"] == ["opted_out"]
    assert phone("PUT", where).json == {"out": False}
    assert shop.get(LIST).json == NONE
    strange: list[Any] = [house.anybody, shop]
    for other in strange:
        assert other("DELETE", where).status == 401
    assert phone("DELETE", "/v1/apps/cafe/opt-in").status in {401, 403}
    assert phone("DELETE", "/v1/apps/shop/users/oB/opt-in").status == 401
