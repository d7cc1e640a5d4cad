"""The console in a real browser: signed in, watched, moved; and nobody else's page can do it."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from clerks import shelve
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from shop import Shop
from web_house import APPS, BROADCASTS, PERMITS, TEMPLATE, Caller, House
from webhook_end import kill, of_app

from producers.store import keys
from producers.store.clock import now_ms
from producers.templates import Field, Template
from producers.webhooks.wishes import Wishes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (CI installs it)"),
]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield one
        one.close()


@pytest.fixture
def page(browser: Browser, house: House) -> Iterator[Page]:
    context = browser.new_context(base_url=f"http://127.0.0.1:{house.port}", locale="en-GB")
    one = context.new_page()
    one.set_default_timeout(10_000)
    said: list[str] = []
    one.on("console", lambda message: said.append(message.text))
    one.on("pageerror", lambda error: said.append(str(error)))
    yield one
    context.close()
    assert [text for text in said if "Failed to load resource" not in text] == []


@pytest.fixture
def made(shop: Caller) -> str:
    """A broadcast to three users, who wait."""
    shop.post(PERMITS, [{"openid": f"o{n}", "formIds": [f"f{n}"]} for n in range(3)])
    spec = {"channel": "template", "template_id": TEMPLATE, "audience": "all", "data": "a,b"}
    return str(shop.post(BROADCASTS, spec).json["id"])


def sign_in(page: Page, token: str) -> None:
    page.goto("/")
    page.get_by_label("API key").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Broadcasts")).to_be_visible()


def test_a_broadcast_is_watched_and_moved(page: Page, shop: Caller, made: str) -> None:
    sign_in(page, shop.token)
    page.get_by_role("link", name=made).click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert shop.get(f"{BROADCASTS}/{made}").json["state"] == "paused"
    shop.post(f"{BROADCASTS}/{made}/resume")  # somewhere else
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_hostile_names_are_text(page: Page, shop: Caller, house: House) -> None:
    shop.post(PERMITS, {"openid": "o1", "formIds": ["f1"]})
    spec = {"channel": "template", "template_id": HOSTILE.replace(" ", "_"), "audience": "all"}
    made = str(shop.post(BROADCASTS, {**spec, "data": "a,b"}).json["id"])
    home = keys.home(house.settings.layout.home_of(made), made)
    house.client.hset(home, mapping={"reason": HOSTILE, "state": "paused"})
    sign_in(page, shop.token)
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    page.get_by_role("link", name=made).click()
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("main img").count() == 0
    told = Field("thing1", "thing", HOSTILE, HOSTILE)
    listed = Field("phrase2", "phrase", HOSTILE, HOSTILE, (HOSTILE,))
    shelve(house.client, Template("T1", HOSTILE, HOSTILE, (told, listed)))
    page.get_by_role("link", name="New").click()
    page.get_by_role("combobox", name="template", exact=True).select_option("T1")
    page.get_by_label("openids").fill(HOSTILE)
    expect(page.locator(".phone b")).to_have_text(HOSTILE)
    expect(page.locator("#reach li").first).to_be_visible()
    page.get_by_role("link", name="User").click()
    page.get_by_label("openid").fill(HOSTILE)
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator("img").count() == 0


def test_nothing_is_fetched_from_elsewhere(page: Page, shop: Caller, house: House) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sign_in(page, shop.token)
    own = f"http://127.0.0.1:{house.port}/"
    assert [url for url in asked if not url.startswith((own, "data:"))] == []


def test_it_works_by_keyboard_alone_and_in_chinese(
    browser: Browser, house: House, shop: Caller, made: str
) -> None:
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{house.port}",
        locale="zh-CN",
        viewport={"width": 360, "height": 740},
        color_scheme="dark",
    )
    page = context.new_page()
    page.goto("/")
    page.get_by_label("API 密钥").focus()
    page.keyboard.type(shop.token)
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name=made)
    expect(link).to_be_visible()
    link.focus()
    page.keyboard.press("Enter")
    pause = page.get_by_role("button", name="暂停")
    expect(pause).to_be_visible()
    pause.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # the dialog's first button has the focus
    expect(page.get_by_role("button", name="继续")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


CLASS = Template(
    "T1",
    "上课提醒",
    "one_off",
    (
        Field("thing1", "thing", "课程", "英语口语"),
        Field("phrase2", "phrase", "状态", "待上课", ("待上课", "已取消")),
    ),
)


@pytest.fixture
def school(house: House, shop: Caller) -> None:
    """Give an app with a template, and five users who accepted it."""
    shelve(house.client, CLASS)
    shop.post(PERMITS, [{"openid": f"o{n}", "subscriptions": {"T1": "accept"}} for n in range(5)])


def compose(page: Page, shop: Caller) -> None:
    sign_in(page, shop.token)
    page.get_by_role("link", name="New").click()
    page.get_by_label("template", exact=True).select_option("T1")


@pytest.mark.usefixtures("school")
def test_a_broadcast_is_composed_checked_as_it_is_typed_and_sent_once(
    page: Page, shop: Caller
) -> None:
    compose(page, shop)
    page.get_by_label("课程").fill("一二三四五六七八九十一二三四五六七八九十多")
    expect(page.locator("#fault-thing1")).to_contain_text("thing1")
    expect(page.get_by_label("课程")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("课程").fill(HOSTILE[:18])
    page.get_by_label("状态").select_option("已取消")
    expect(page.locator("#fault-thing1")).to_be_empty()
    expect(page.locator(".phone")).to_contain_text(HOSTILE[:18])
    expect(page.locator("#reach")).to_contain_text("Nothing is wrong with it.")
    expect(page.get_by_role("row", name="can be sent to")).to_contain_text("5")
    page.get_by_role("button", name="Send…").dblclick()
    page.get_by_role("button", name="Yes").dblclick()
    expect(page.get_by_role("heading", level=1)).not_to_have_text("New")
    (made,) = shop.get(BROADCASTS).json["broadcasts"]
    expect(page.get_by_role("heading", name=made["id"])).to_be_visible()
    assert (made["template_id"], made["audience"], made["channel"]) == ("T1", "all", "subscribe")


@pytest.mark.usefixtures("school")
def test_a_lost_answer_makes_one_broadcast(page: Page, shop: Caller) -> None:
    compose(page, shop)
    page.get_by_label("课程").fill("Maths")
    page.get_by_label("状态").select_option("待上课")

    def lose(route: Route) -> None:
        route.fetch()  # it is made, and nobody is told
        route.abort()

    page.route("**/v1/apps/shop/broadcasts", lose, times=1)
    page.get_by_role("button", name="Send…").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("alert")).to_contain_text("fetch")
    page.get_by_role("button", name="Send…").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("status")).to_contain_text("Made:")
    assert len(shop.get(BROADCASTS).json["broadcasts"]) == 1


def test_a_key_that_may_do_less_is_offered_less(page: Page, house: House) -> None:
    sign_in(page, house.caller("read").token)
    expect(page.get_by_role("link", name="Trouble")).to_be_visible()
    expect(page.get_by_role("link", name="New")).to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").fill(house.caller("send").token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("This key may not look")).to_be_visible()


@pytest.mark.usefixtures("school")
def test_a_dropped_file_becomes_an_audience_or_words_for_each(page: Page, shop: Caller) -> None:
    compose(page, shop)
    page.get_by_label("recipients").select_option("file")
    page.get_by_label("Drop a file here").set_input_files(
        {"name": "early birds.txt", "mimeType": "text/plain", "buffer": b"o1\no2\nno openid\n"}
    )
    expect(page.get_by_label("name of the audience")).to_have_value("early-birds")
    page.get_by_role("button", name="Store as this audience").click()
    expect(page.get_by_role("status")).to_contain_text("2 stored, 1 bad rows")
    assert shop.get("/v1/apps/shop/audiences/early-birds").json["members"] == 2
    expect(page.get_by_label("audience", exact=True)).to_have_value("early-birds")

    page.get_by_label("recipients").select_option("file")
    drop = """(at) => { const it = new DataTransfer();
      it.items.add(new File(['openid,course\\no1,Maths\\no2,"Art, new"\\n'], 'two.csv'));
      const event = {dataTransfer: it, bubbles: true, cancelable: true};
      at.dispatchEvent(new DragEvent('drop', event)); }"""
    page.locator(".drop").evaluate(drop)
    page.get_by_role("button", name="thing1: {course}").click()
    page.get_by_label("状态").select_option("待上课")
    expect(page.locator(".phone")).to_contain_text("Maths")
    expect(page.get_by_role("row", name="can be sent to")).to_contain_text("2")
    page.get_by_role("button", name="Send…").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("status")).to_contain_text("Made:")
    assert shop.get(BROADCASTS).json["broadcasts"][0]["expected"] == 2


@pytest.mark.usefixtures("school")
def test_it_is_tried_first_and_made_for_later(page: Page, shop: Caller, house: House) -> None:
    compose(page, shop)
    page.get_by_label("recipients").select_option("expression")
    page.get_by_label("expression").fill("all - nobody")
    expect(page.locator("#size")).to_contain_text("no audience 'nobody'")
    page.get_by_label("expression").fill("all & all")
    expect(page.locator("#size")).to_contain_text("5 users")
    page.get_by_label("课程").fill("Maths")
    page.get_by_label("状态").select_option("待上课")
    page.get_by_label("openids").fill("o1 o2")
    page.get_by_role("button", name="Send the test").click()
    expect(page.get_by_role("alert")).to_contain_text("no worker alive")
    house.client.zadd(keys.WORKERS, {"w1": now_ms(house.client) + 60_000})
    page.get_by_role("button", name="Send the test").click()
    staff, answered = Shop(house.client, house.settings), 0
    while answered < 2:
        for claim in staff.take():
            outcome, errcode = ("delivered", 0) if answered else ("refused", 43101)
            staff.settle(claim, outcome=outcome, errcode=errcode)
            answered += 1
    expect(page.get_by_role("row", name="43101")).to_contain_text("has not accepted")
    expect(page.get_by_role("row", name="delivered")).to_contain_text("WeChat took it")
    page.get_by_label("start").select_option("every")
    page.get_by_label("name of the series").fill("evening")
    page.get_by_label("every (cron)").fill("0 21 * *")
    expect(page.locator("#reach")).to_contain_text("five fields")
    page.get_by_label("every (cron)").fill("0 21 * * *")
    page.get_by_label("time zone").fill("Asia/Shanghai")
    expect(page.locator("#reach")).to_contain_text("Nothing is wrong with it.")
    page.get_by_role("button", name="Make the series…").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("status")).to_contain_text("Made: evening")
    assert shop.get("/v1/apps/shop/series/evening").json["every"] == "0 21 * * *"


def test_what_is_in_doubt_is_shown_and_decided(page: Page, shop: Caller, house: House) -> None:
    staff = Shop(house.client, house.settings)
    for openid in ("o1", "o2"):
        staff.give(openid, subscriptions={TEMPLATE: "accept"})
    made = staff.broadcast("subscribe")
    staff.open(made)
    for claim in staff.take():
        if claim.openid == "o2":
            staff.settle(claim, outcome="refused", errcode=43101)
    staff.recover(made)
    sign_in(page, shop.token)
    page.get_by_role("link", name=made).click()
    expect(page.get_by_role("row", name="43101")).to_contain_text("has not accepted")
    page.get_by_role("link", name="Trouble").click()
    page.get_by_role("button", name="Who").click()
    expect(page.get_by_text("o1 (")).to_be_visible()
    page.get_by_role("button", name="They had it not").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("heading", name="In doubt")).to_have_count(0)
    assert shop.get(f"{BROADCASTS}/{made}").json["outcomes"] == {"failed": 1, "refused": 1}
    page.get_by_role("link", name="User").click()
    page.get_by_label("openid").fill("o2")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("row", name="43101")).to_contain_text("refused")


VIEWS = ("", "new", "apps", "app/shop", "workers", "trouble", "user")


@pytest.mark.usefixtures("school")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_axe_is_broken_and_nothing_is_wider_than_a_phone(
    page: Page, shop: Caller, made: str, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/")
    expect(page.get_by_label("API key")).to_be_visible()
    check(page)
    sign_in(page, shop.token)
    for view in (*VIEWS, f"b/{made}"):
        page.goto(f"/#/{view}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if view == "new":
            page.get_by_role("combobox", name="template", exact=True).select_option("T1")
            page.get_by_label("课程").fill("x" * 30)
            expect(page.locator("#fault-thing1")).not_to_be_empty()
            page.locator("summary").click()
        if view == "app/shop":
            page.get_by_label("template", exact=True).fill("T1")
            page.get_by_role("button", name="Show").click()
            expect(page.get_by_role("row", name="now")).to_contain_text("5")
        if view == "user":
            page.get_by_label("openid").fill("o1")
            page.get_by_role("button", name="Show").click()
            expect(page.get_by_role("row", name="subscription")).to_contain_text("T1")
        check(page)


def check(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    told = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
    assert told == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, page.url


PICTURES = Path(__file__).parents[3] / "producers" / "web" / "pictures"


@pytest.mark.skipif(not os.environ.get("WXB_PICTURES"), reason="WXB_PICTURES=1 makes them anew")
@pytest.mark.usefixtures("school")
def test_the_pictures_of_the_readme_are_made(page: Page, shop: Caller, house: House) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.set_viewport_size({"width": 1100, "height": 860})
    house.client.zadd(keys.WORKERS, {"w1": now_ms(house.client) + 60_000})
    compose(page, shop)
    page.get_by_label("课程").fill("英语口语 第三课")
    page.get_by_label("状态").select_option("待上课")
    expect(page.locator("#reach")).to_contain_text("Nothing is wrong with it.")
    take(page, "composer.png")
    staff = Shop(house.client, house.settings)
    made = staff.broadcast("subscribe", template_id="T1", data={"thing1": "a", "phrase2": "待上课"})
    staff.open(made)
    for place, claim in enumerate(staff.take()[:3]):
        staff.settle(
            claim, outcome="delivered" if place else "refused", errcode=0 if place else 43101
        )
    page.set_viewport_size({"width": 390, "height": 760})
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="中文").click()
    page.goto(f"/#/b/{made}")
    expect(page.get_by_role("row", name="43101")).to_be_visible()
    take(page, "phone.png")


def take(page: Page, name: str) -> None:
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=PICTURES / name)
    assert (PICTURES / name).stat().st_size < 200_000


def test_webhooks_that_were_given_up_are_posted_again(
    browser: Browser, open_house: Callable[..., House]
) -> None:
    house = open_house(apps={**APPS, "shop": {**APPS["shop"], **of_app("https://hooks.example/")}})
    Wishes(house.client, house.settings).tell()
    staff = Shop(house.client, house.settings)
    staff.give("o1", formId="f1")
    staff.broadcasts.pause(staff.broadcast())
    with ThreadPoolExecutor(1) as pool:  # playwright's loop runs on this thread
        pool.submit(lambda: asyncio.run(kill(house.settings))).result()
    caller = house.caller()
    context = browser.new_context(base_url=f"http://127.0.0.1:{house.port}", locale="en-GB")
    page = context.new_page()
    sign_in(page, caller.token)
    page.get_by_role("link", name="Trouble").click()
    expect(page.get_by_role("row", name="broadcast.paused")).to_contain_text("HTTP 500")
    page.get_by_role("button", name="Replay").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("row", name="broadcast.paused")).to_have_count(0)
    assert caller.get("/v1/apps/shop/webhooks").json["box"]["dead"] == 0
    context.close()
