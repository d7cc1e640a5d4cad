"""The settings of callbacks are checked at the start, and never shown."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from wechat_pushes import AES_KEY, POPUP, TOKEN, Desk, choice, push

from producers.errors import UnknownAppError
from producers.settings import AppSettings


def app(**fields: Any) -> AppSettings:
    return AppSettings.model_validate({"appid": "wx1", "secret": "s", **fields})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"callback_token": "ab"}, "3 to 64"),
        ({"callback_token": "a b c"}, "3 to 64"),
        ({"callback_token": "ключ"}, "3 to 64"),
        ({"callback_token": TOKEN, "callback_aes_key": AES_KEY[:-1]}, "43 characters"),
        ({"callback_token": TOKEN, "callback_aes_key": AES_KEY + "="}, "43 characters"),
        ({"callback_token": TOKEN, "callback_aes_key": AES_KEY[:-1] + "-"}, "43 characters"),
        ({"callback_aes_key": AES_KEY}, "set callback_token too"),
    ],
)
def test_a_wrong_setting_says_what_to_set(fields: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        app(**fields)


def test_token_and_key_are_never_shown() -> None:
    shown = repr(app(callback_token=TOKEN, callback_aes_key=AES_KEY))
    assert TOKEN not in shown
    assert AES_KEY not in shown


def test_without_a_token_there_are_no_callbacks() -> None:
    assert app().callback_token is None
    assert app(callback_token=TOKEN).callback_plain is False


def test_an_app_that_comes_while_the_service_runs_has_its_pushes_acted_on(
    open_desk: Callable[..., Desk], eventually: Callable[..., Any]
) -> None:
    """And one that goes has them kept until it returns."""
    desk = open_desk()
    apps = desk.settings.apps
    shop = apps["shop"]
    apps.put({"cafe": shop.model_copy(update={"callback_token": None})})
    stop = threading.Event()
    acting = threading.Thread(target=desk.callbacks.run, args=(stop,), daemon=True)
    acting.start()
    try:
        apps.put({"shop": shop})
        query, body = push(POPUP, choice("accept"))
        desk.callbacks.receive("shop", query, body)
        eventually(lambda: desk.count() == 1, "it was acted on", within_s=5)
        apps.put({"cafe": shop})
        with pytest.raises(UnknownAppError):
            desk.callbacks.receive("shop", *push(POPUP, choice("accept", "U")))
        assert acting.is_alive()
    finally:
        stop.set()
        acting.join(5)
