"""The settings of one mini-program."""

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from producers.openid import TEMPLATE_ID
from producers.settings.values import PerDay, PerMinute, Rate, checked_zone, signing_keys
from producers.times.windows import Window
from producers.times.zones import DEFAULT, zone_of
from producers.words import EventType, TokenSource

PURPOSE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
PURPOSE_IS: Final = "1-32 of a-z 0-9 _ -, a letter first"
"""What a broadcast is for, as its app names it."""

MOST_SENDS: Final = 1_000_000_000_000
"""In a minute, in a day: a number that Redis and JSON hold exactly."""

MOST_PURPOSES: Final = 16
MOST_KEPT: Final = 50
"""Templates with a number of their own."""

UsesLeft = Annotated[int, Field(ge=0, le=100)]
Cap = Annotated[int, Field(ge=0, le=20)]


class AppSettings(BaseModel):
    """One mini-program: who it is, and what WeChat and you allow it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    appid: str = Field(min_length=1, max_length=64, description="the mini-program's appid (wx…)")
    secret: SecretStr = Field(min_length=1, description="its AppSecret")
    wechat_url: AnyHttpUrl | None = Field(None, description="base URL; default: WXB_WECHAT_URL")
    rate_per_second: Rate = Field(
        300,
        description="sends started by all workers together; 0 = unlimited, else 0.001 to 1,000,000",
    )
    rate_per_minute: PerMinute = Field(
        0, ge=0, le=MOST_SENDS, description="the same per sliding minute; 0 = unlimited"
    )
    daily_limit: PerDay = Field(
        10_000_000,
        ge=0,
        le=MOST_SENDS,
        description="sends per day; 0 = unlimited. WeChat: 10,000,000, with WeChat Pay 30,000,000",
    )
    read_quota: bool = Field(
        True,
        description="workers ask WeChat now and then what is left of the day's quota, and send no "
        "more, and about refusals that nobody knows; false: only daily_limit holds",
    )
    day_starts_at_hour: int = Field(0, ge=0, le=23, description="when the daily count starts anew")
    day_zone: str = Field(DEFAULT, description="the time zone of that hour")
    zone: str | None = Field(
        None, description="its time zone, for times without an offset; default: WXB_ZONE"
    )
    send_window: str = Field(
        "",
        description="hours in which broadcasts are sent, such as 08:00-22:00, in its zone; outside "
        "they wait; empty: at any time",
    )
    window_holds_messages: bool = Field(
        False, description="single messages wait for the window, too; else they pass"
    )
    token_source: TokenSource = Field(
        TokenSource.STABLE,
        description="stable_token, cgi-bin/token, or an outside service: url with token_url, redis "
        "with token_key",
    )
    token_url: SecretStr | None = Field(
        None, description="token_source=url: GET it, answers {access_token, expires_in}"
    )
    token_key: str | None = Field(None, description="token_source=redis: the key that holds it")
    long_term_templates: tuple[str, ...] = Field(
        (),
        description="template ids of long-term subscriptions (one accept, many messages), beside "
        "those that WeChat lists as such",
    )
    subscribe_templates: tuple[str, ...] = Field(
        (), description="template ids that phones may report; empty: any (set it in production)"
    )
    templates: Literal["on", "off"] = Field(
        "on",
        description="read the app's own templates from WeChat, and refuse a broadcast or message "
        "that none of them fits; off: WeChat is not asked",
    )
    subscription_source: Literal["phone", "events"] = Field(
        "phone", description="whose accepts count: the phone's results or WeChat's events"
    )
    callback_token: SecretStr | None = Field(
        None, description="the Token of the console's message push; unset: no callbacks"
    )
    callback_aes_key: SecretStr | None = Field(
        None, description="its EncodingAESKey, 43 characters; set: only encrypted pushes count"
    )
    callback_plain: bool = Field(
        False, description="take plain pushes too though callback_aes_key is set"
    )
    webhook_url: SecretStr | None = Field(
        None, description="what becomes of broadcasts is POSTed to this https:// URL; unset: none"
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="signs them: whsec_ and 24 to 64 bytes in base64; two with a blank between "
        "while it is changed",
    )
    webhook_events: tuple[EventType, ...] = Field(
        (EventType.FINISHED, EventType.ABORTED, EventType.PAUSED, EventType.CANCELLED),
        min_length=1,
        description="what is told",
    )
    webhook_in_flight: int = Field(
        4, ge=1, le=50, description="unanswered webhooks of the app, per lane"
    )
    permits_per_user: int = Field(
        100, ge=1, le=1000, description="stored uses per user; the newest are kept"
    )
    keep_for_messages: UsesLeft = Field(
        0,
        description="each user's last uses that broadcasts leave to single messages: form_ids and "
        "prepay_ids together, accepts by template; long-term ones never run out",
    )
    keep_for_messages_of: dict[str, UsesLeft] = Field(
        default_factory=dict,
        max_length=MOST_KEPT,
        description='the same for broadcasts of some templates: {"TEMPLATE_ID": 0}',
    )
    per_user_per_day: dict[str, Cap] = Field(
        default_factory=dict,
        max_length=MOST_PURPOSES,
        description="broadcasts of a purpose that a user gets on a day of its zone, 0: no cap: "
        '{"marketing": 2}; no other purpose is taken',
    )
    retry_when_busy: bool = Field(
        False,
        description="repeat a prepay_id or subscription send that WeChat answered with -1, though "
        "it may have been delivered; else it is in_doubt (a form_id's always is: it counts once)",
    )

    @field_validator("day_zone", "zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        return None if value is None else checked_zone(value)

    @field_validator("send_window")
    @classmethod
    def _window_is_one(cls, value: str) -> str:
        if value:
            Window.read(value, zone_of(DEFAULT))
        return value

    @field_validator("per_user_per_day")
    @classmethod
    def _purposes_are_names(cls, value: dict[str, int]) -> dict[str, int]:
        for purpose in value:
            if not PURPOSE.fullmatch(purpose):
                raise ValueError(f"{purpose[:40]!r} is no purpose: {PURPOSE_IS}")
        return value

    @field_validator("long_term_templates", "subscribe_templates", "keep_for_messages_of")
    @classmethod
    def _templates_are_ids(cls, value: Collection[str]) -> Collection[str]:
        for template in value:
            if not TEMPLATE_ID.fullmatch(template):
                raise ValueError(
                    f"{template[:40]!r} is no template id: visible ASCII characters without "
                    "blanks and colons, as the console shows it"
                )
        return value

    @field_validator("token_url")
    @classmethod
    def _token_url_is_one(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("must start with https:// or http://")
        return value

    @field_validator("callback_token")
    @classmethod
    def _callback_token_is_one(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.fullmatch(r"[\x21-\x7e]{3,64}", value.get_secret_value()):
            raise ValueError("must be 3 to 64 visible ASCII characters, as in the console")
        return value

    @field_validator("callback_aes_key")
    @classmethod
    def _callback_key_is_one(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.fullmatch(r"[A-Za-z0-9+/]{43}", value.get_secret_value()):
            raise ValueError("must be the 43 characters of the console's EncodingAESKey")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url_is_one(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = AnyHttpUrl(value.get_secret_value())
        except ValueError:  # its text would hold the URL
            url = None
        if url is None or url.username or url.password or url.fragment:
            raise ValueError("must be a URL, https://host/path, without a password or #fragment")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_secret_is_one(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            signing_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _texts_are_whole(self) -> Self:
        """Refuse half a surrogate, which JSON can name, and no digest and no request can hold."""
        for name, value in self:
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ValueError(
                    f"{name}: half a character (\\ud800…\\udfff) is in it; write it anew"
                )
        return self

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.keep_for_messages >= self.permits_per_user:
            raise ValueError(
                f"keep_for_messages {self.keep_for_messages}: a user has at most permits_per_user "
                f"{self.permits_per_user}, so broadcasts would reach nobody; keep fewer"
            )
        return self

    @model_validator(mode="after")
    def _webhook_is_complete(self) -> Self:
        if (self.webhook_url is None) != (self.webhook_secret is None):
            raise ValueError("set both of webhook_url and webhook_secret, or none")
        return self

    @model_validator(mode="after")
    def _callback_is_complete(self) -> Self:
        if self.callback_aes_key and not self.callback_token:
            raise ValueError("callback_aes_key is set: set callback_token too")
        return self

    @model_validator(mode="after")
    def _token_source_is_complete(self) -> Self:
        if self.token_source is TokenSource.URL and self.token_url is None:
            raise ValueError("token_source is url: set token_url too")
        if self.token_source is TokenSource.REDIS and not self.token_key:
            raise ValueError("token_source is redis: set token_key too")
        return self

    @property
    def keep(self) -> str:
        """What broadcasts leave to single messages, as kept.lua reads it."""
        if not self.keep_for_messages and not any(self.keep_for_messages_of.values()):
            return ""
        own = (f" {template}:{uses}" for template, uses in self.keep_for_messages_of.items())
        return f"{self.keep_for_messages}{''.join(own)}"

    def day_offset_ms(self) -> int:
        """Return what to add to epoch ms so that the app's day starts at a multiple of 24 h."""
        offset = datetime.now(zone_of(self.day_zone)).utcoffset() or timedelta()
        return round((offset - timedelta(hours=self.day_starts_at_hour)).total_seconds() * 1000)
