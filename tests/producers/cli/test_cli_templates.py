"""``wxbroadcast templates``."""

from clerks import shelve
from cli_runs import run
from shop import Shop

from producers.settings import Settings
from producers.templates import Field, Template

STATE = Field("enum_string2", "enum_string", "状态", "", ("开", "关"))
TEMPLATE = Template(
    "T1", "会议通知", "long_term", (Field("thing1", "thing", "地点", "三楼"), STATE)
)


def test_the_templates_of_an_app_are_listed(settings: Settings, shop: Shop) -> None:
    shelve(shop.client, TEMPLATE, age_ms=5000)
    ran = run(settings, "templates", "-a", "shop")
    for word in ("T1", "会议通知", "long-term", "thing1 地点, as 三楼", "状态: 开 | 关"):
        assert word in ran.out
    assert "1 subscribe templates of shop, read 5 s ago" in ran.err
    found = run(settings, "templates", "-a", "shop", "--json").json
    assert found["templates"] == [TEMPLATE.as_dict()]


def test_without_a_worker_it_says_that_nothing_is_known(settings: Settings, shop: Shop) -> None:
    ran = run(settings, "templates", "-a", "shop", "--channel", "template", "--refresh")
    assert ran.code == 0
    assert "not read from WeChat anew: no worker lives that could ask WeChat" in ran.err
    assert "nothing is known of them" in ran.err


def test_what_cannot_be_listed_is_said_why(settings: Settings) -> None:
    assert (
        "channel 'x': take template or subscribe"
        in run(settings, "templates", "-a", "shop", "--channel", "x").err
    )
    assert run(settings, "templates", "-a", "none").code == 2
