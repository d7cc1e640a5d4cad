"""The app's templates over HTTP."""

from clerks import shelve
from web_house import Caller, House

from producers.templates import Field, Template

LIST = "/v1/apps/shop/templates"


def test_the_templates_of_an_app_are_listed(house: House, shop: Caller) -> None:
    template = Template("T1", "会议通知", "one_off", (Field("thing1", "thing", "地点", "三楼"),))
    shelve(house.client, template)
    found = shop.get(LIST).json
    assert found["templates"] == [template.as_dict()]
    assert (found["channel"], found["is_whole"], found["trouble"]) == ("subscribe", True, "")


def test_a_list_that_nobody_can_read_is_answered_at_once(shop: Caller) -> None:
    found = shop.get(f"{LIST}?channel=template&refresh=true").json
    assert (found["read_at_ms"], found["templates"]) == (0, [])
    assert found["trouble"] == "no worker lives that could ask WeChat"
    assert shop.get(f"{LIST}?refresh=1").status == 422
