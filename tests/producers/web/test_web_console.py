"""The console in a real browser: signed in, watched, moved; and nobody else's page can do it."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from web_house import BROADCASTS, PERMITS, TEMPLATE, Caller, House

from producers.store import keys

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
    said: list[str] = []
    one.on("console", lambda message: said.append(message.text))
    one.on("pageerror", lambda error: said.append(str(error)))
    yield one
    context.close()
    assert [text for text in said if "401" not in text] == []


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
    home = keys.home(keys.lane_of(made, house.settings.lanes), made)
    house.client.hset(home, mapping={"reason": HOSTILE, "state": "paused"})
    sign_in(page, shop.token)
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    page.get_by_role("link", name=made).click()
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("main img").count() == 0


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
