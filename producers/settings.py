"""The settings: one frozen tree, read once from ``WXB_`` variables and ``.env``, and passed down.

Nested names use two underscores: ``WXB_APPS__SHOP__RATE_PER_SECOND=300`` equals the field inside
the JSON of ``WXB_APPS``. Unknown ``WXB_`` names are refused, so that a typing error cannot go
unnoticed. No other module reads the environment.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

import redis.connection
from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from producers.errors import SettingsError, UnknownAppError
from producers.logs.processors import Processor, imported
from producers.openid import TEMPLATE_ID
from producers.words import TokenSource

WECHAT_URL: Final = "https://api.weixin.qq.com"
_PREFIX: Final = "WXB_"
_ALIAS: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts: written beside a field's type, for whoever lists the settings."""

    name: str


def _seconds(value: object) -> object:
    """Take a number of seconds written as text, as environment variables are."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # ISO 8601, or wrong: pydantic says which


Duration = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta()), Unit("seconds")]
PositiveDuration = Annotated[
    timedelta, BeforeValidator(_seconds), Field(gt=timedelta()), Unit("seconds")
]
Bytes = Annotated[int, Unit("bytes")]
PerMinute = Annotated[int, Unit("per minute")]
PerDay = Annotated[int, Unit("per day")]


LEAST_RATE: Final = 0.001
MOST_RATE: Final = 1_000_000
"""Sends per second. The limiter reckons in sends per 1,000 seconds: less than one is no rate."""


def rate_faults(rate: float) -> list[str]:
    """Return what is wrong with a rate of sends per second."""
    if rate == 0 or LEAST_RATE <= rate <= MOST_RATE:
        return []
    return [f"rate {rate}: sends per second, 0 (no limit of its own) or 0.001 to 1,000,000"]


def kept_rate(stored: float) -> float:
    """Return a stored rate as one that may be: what an earlier version let in counts as slowest."""
    return LEAST_RATE if rate_faults(stored) else stored


def _checked_rate(rate: float) -> float:
    faults = rate_faults(rate)
    if faults:
        raise ValueError(faults[0])
    return rate


Rate = Annotated[
    float,
    AfterValidator(_checked_rate),
    Unit("sends per second"),
    WithJsonSchema(
        {"anyOf": [{"const": 0}, {"type": "number", "minimum": LEAST_RATE, "maximum": MOST_RATE}]}
    ),
]
"""Sends per second: 0, or what `rate_faults` finds nothing wrong with."""


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
        0, ge=0, description="the same per sliding minute; 0 = unlimited"
    )
    daily_limit: PerDay = Field(
        10_000_000,
        ge=0,
        description="sends per day; 0 = unlimited. WeChat: 10,000,000, with WeChat Pay 30,000,000",
    )
    day_starts_at_hour: int = Field(0, ge=0, le=23, description="when the daily count starts anew")
    day_zone: str = Field("Asia/Shanghai", description="the time zone of that hour")
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
        (), description="template ids of long-term subscriptions: one accept, many messages"
    )
    subscribe_templates: tuple[str, ...] = Field(
        (), description="template ids that phones may report; empty: any (set it in production)"
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
    permits_per_user: int = Field(
        100, ge=1, le=1000, description="stored uses per user; the newest are kept"
    )
    retry_when_busy: bool = Field(
        False,
        description="repeat a prepay_id or subscription send that WeChat answered with -1, though "
        "it may have been delivered; else it is in_doubt (a form_id's always is: it counts once)",
    )

    @field_validator("day_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"unknown time zone {value!r}; set for instance Asia/Shanghai"
            ) from error
        return value

    @field_validator("long_term_templates", "subscribe_templates")
    @classmethod
    def _templates_are_ids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
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

    def day_offset_ms(self) -> int:
        """Return what to add to epoch ms so that the app's day starts at a multiple of 24 h."""
        offset = datetime.now(ZoneInfo(self.day_zone)).utcoffset() or timedelta()
        return round((offset - timedelta(hours=self.day_starts_at_hour)).total_seconds() * 1000)


class Settings(BaseSettings):
    """Everything that can be set. Durations in the environment: seconds, or ISO 8601."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        env_file=None,
        frozen=True,
        extra="ignore",
        nested_model_default_partial_update=True,
    )

    redis_url: SecretStr = Field(description="redis://host:6379/0, or rediss:// for TLS")
    wechat_url: AnyHttpUrl = Field(AnyHttpUrl(WECHAT_URL), description="WeChat's base URL")
    apps: dict[Annotated[str, Field(pattern=_ALIAS)], AppSettings] = Field(
        min_length=1, description='JSON: {"shop": {"appid": "wx…", "secret": "…"}}'
    )
    lanes: int = Field(1, ge=1, le=1024, description="units of locality; fixed at birth")
    buckets: int = Field(
        16384,
        ge=1,
        le=1_048_576,
        description="about users / 64; a multiple of lanes, fixed at birth",
    )
    window: PositiveDuration = Field(
        timedelta(seconds=1), description="how much of a broadcast is queued ahead of the sending"
    )
    retention: Duration = Field(
        timedelta(days=14), description="how long outcomes are kept after the end of a broadcast"
    )
    canary: int = Field(
        10,
        ge=1,
        le=1000,
        description="permits at risk before the first delivery, and failures in a row that stop a "
        "broadcast",
    )
    in_flight: int = Field(
        1000, ge=1, le=20_000, description="unanswered POSTs per worker process, shared by its apps"
    )
    post_timeout: PositiveDuration = Field(
        timedelta(seconds=8), description="one POST to WeChat, connecting included; 0.1 to 8 s"
    )
    connect_timeout: PositiveDuration = Field(
        timedelta(seconds=3), description="connecting to WeChat"
    )
    redis_timeout: PositiveDuration = Field(timedelta(seconds=5), description="one Redis command")
    producer_timeout: PositiveDuration = Field(
        timedelta(seconds=5),
        description="one call of a Producer, or of the web service to Redis, retries included",
    )
    permit_margin: Duration = Field(
        timedelta(seconds=10), description="a permit nearer to its expiry than this is not used"
    )
    attempts: int = Field(5, ge=1, le=20, description="tries per recipient before it fails")
    error_budget: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a broadcast pauses when more than this share of its last answers failed",
    )
    error_window: int = Field(
        200, ge=0, description="how many answers that looks at, per lane; 0 = never pauses"
    )
    ticket_life: PositiveDuration = Field(
        timedelta(hours=2), description="how long a mini-program's login lasts; 1 minute to 1 day"
    )
    uploads_per_minute: PerMinute = Field(
        60, ge=1, le=60_000, description="calls of one user through the mini-program's door"
    )
    permits_per_day: PerDay = Field(
        200,
        ge=1,
        le=100_000,
        description="permits that one user files through the mini-program's door: what one can tap",
    )
    logins_per_minute: PerMinute = Field(
        600,
        ge=1,
        le=60_000,
        description="logins of one address; thousands of phones may share a carrier's",
    )
    refused_codes_per_minute: PerMinute = Field(
        300,
        ge=1,
        le=60_000,
        description="login codes of one address that WeChat refused; more wait their turn",
    )
    app_logins_per_minute: PerMinute = Field(
        12_000,
        ge=2,
        le=6_000_000,
        description="login codes of one app that WeChat is asked about; half of them may be bad",
    )
    callback_max_age: Duration = Field(
        timedelta(minutes=5),
        description="how far a push's timestamp may be from Redis's clock; 0 = any",
    )
    callback_inbox: int = Field(
        100_000, ge=1, le=1_000_000, description="pushes of one app that may wait to be acted on"
    )
    log_sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of per-send lines that is written; lifecycle lines all are",
    )
    log_processors: str = Field(
        "",
        pattern=r"^$|^[\w.]+:\w+( *, *[\w.]+:\w+)*$",
        description="structlog processors of yours for the lines of workers and service: "
        "package.module:name, with commas between them",
    )
    web_host: str = Field("127.0.0.1", min_length=1, description="address the service listens on")
    web_port: int = Field(8080, ge=0, le=65535, description="its port; 0 = a free one")
    web_processes: int = Field(1, ge=1, le=64, description="processes behind that port")
    web_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="trusted proxies before it, which append to X-Forwarded-For; 0 = none",
    )
    web_body_limit: Bytes = Field(1_048_576, ge=1024, le=67_108_864, description="one JSON body")
    web_stream_limit: Bytes = Field(1_073_741_824, ge=1024, description="one streamed import")
    web_requests: int = Field(
        512, ge=1, le=10_000, description="requests at work per process; more get 503"
    )
    web_connections: int = Field(
        4096,
        ge=1,
        description="open connections per process; for one more the oldest that waits for its "
        "client is closed",
    )
    web_connections_of_address: int = Field(
        1024, ge=1, description="of one address (IPv6: of a /64), without proxies before it"
    )
    web_timeout: PositiveDuration = Field(
        timedelta(seconds=15), description="one request, its body read; streamed ones take longer"
    )
    web_read_timeout: PositiveDuration = Field(
        timedelta(seconds=10), description="reading one body, or 64 KiB of a streamed one"
    )
    web_keepalive: PositiveDuration = Field(
        timedelta(seconds=75), description="an idle connection, longer than your balancer's"
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        scheme, _, rest = value.get_secret_value().partition("://")
        place, _, query = rest.partition("#")[0].partition("?")
        path = place.partition("/")[2]
        if scheme != "unix" and ((path and not path.isdigit()) or "@" in query):
            # a / or ? of a password ends its host: the rest would be taken for a path
            raise ValueError(
                "after the host only a database number may come, such as redis://host:6379/0; a "
                "password with / ? # @ or : is to be percent-encoded"
            )
        try:
            options = redis.connection.parse_url(  # type: ignore[no-untyped-call]
                value.get_secret_value()
            )
        except ValueError:
            # its text may hold the password
            raise ValueError("not a Redis URL, such as redis://host:6379/0") from None
        connection = options.pop("connection_class", redis.connection.Connection)
        options.pop("max_connections", None)  # of the pool
        try:
            connection(**options)  # connects to nothing
        except TypeError as error:
            unknown = str(error).rpartition("argument ")[2] or "one"
            raise ValueError(f"the URL has an unknown parameter: {unknown}") from None
        return value

    @field_validator("post_timeout")
    @classmethod
    def _post_timeout_fits_the_lease(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=100) <= value <= timedelta(seconds=8):
            raise ValueError("must lie between 0.1 and 8 seconds (a worker's lease is 8 s)")
        return value

    @field_validator("ticket_life")
    @classmethod
    def _ticket_life_is_short(cls, value: timedelta) -> timedelta:
        if not timedelta(minutes=1) <= value <= timedelta(days=1):
            raise ValueError("must lie between 60 seconds and 1 day (tickets cannot be revoked)")
        return value

    @model_validator(mode="after")
    def _buckets_spread_evenly(self) -> Self:
        if self.buckets % self.lanes:
            raise ValueError(
                f"buckets ({self.buckets}) must be a multiple of lanes ({self.lanes}): "
                "set WXB_BUCKETS or WXB_LANES"
            )
        return self

    def app(self, alias: str) -> AppSettings:
        """Return the settings of an app.

        Raises:
            UnknownAppError: no app of that alias is set.
        """
        found = self.apps.get(alias)
        if found is None:
            raise UnknownAppError(alias, list(self.apps))
        return found

    def wechat_base(self, alias: str) -> str:
        """Return the base URL of an app's WeChat, without a trailing slash."""
        return str(self.app(alias).wechat_url or self.wechat_url).rstrip("/")


def import_log_processors(settings: Settings) -> list[Processor]:
    """Return the application's log processors.

    Raises:
        SettingsError: one of them cannot be imported.
    """
    try:
        return imported(settings.log_processors)
    except ValueError as error:
        raise SettingsError(f"{_PREFIX}LOG_PROCESSORS: {error}") from error


def ms(duration: timedelta) -> int:
    """Return a duration in whole milliseconds."""
    return round(duration.total_seconds() * 1000)


def load(env_file: str | Path = ".env") -> Settings:
    """Read the settings from the environment and a ``.env`` file; the environment wins.

    Args:
        env_file: path of the file; it may be absent.

    Raises:
        SettingsError: something is missing, wrong or unknown; the message names each variable
            and what to set.
    """
    from_file = dotenv_values(env_file) if Path(env_file).is_file() else {}
    names = {name.upper() for name in (*os.environ, *from_file) if name.upper().startswith(_PREFIX)}
    known = tuple(f"{_PREFIX}{field.upper()}" for field in Settings.model_fields)
    faults = [
        f"{name}: {_unknown(name, known)}"
        for name in sorted(names)
        if name not in known and not name.startswith(f"{_PREFIX}APPS__")
    ]
    try:
        settings = Settings(_env_file=env_file)
    except ValidationError as error:
        faults += faults_of(error)
    except SourceError as error:
        nested = {**from_file, **os.environ}
        raise SettingsError(
            "\n".join(
                f'{name}: not JSON; lists and objects are written as JSON, such as ["a", "b"]'
                for name in sorted(names)
                if name.startswith(f"{_PREFIX}APPS") and _is_broken_json(nested.get(name))
            )
            or f"{_PREFIX}APPS: not JSON ({error.__cause__ or error})"
        ) from None
    else:
        if not faults:
            return settings
    raise SettingsError("\n".join(faults)) from None


def faults_of(error: ValidationError) -> list[str]:
    """Return one sentence for each fault of settings: the variable, and what it wants."""
    return [_fault(item["loc"], item["msg"]) for item in error.errors()]


def _is_broken_json(value: str | None) -> bool:
    """Say whether a variable looks like what must be JSON and is not."""
    try:
        json.loads(value or "")
    except json.JSONDecodeError:
        return True
    return False


def _unknown(name: str, known: Iterable[str]) -> str:
    """Say what was perhaps meant by a name that is not known, and which are."""
    close = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"unknown; {meant}known are {', '.join(known)}"


def _fault(loc: tuple[int | str, ...], message: str) -> str:
    """Name the variable of a validation fault, and say what it wants; never its value."""
    variable = _PREFIX + "__".join(str(part).upper() for part in loc if part != "[key]")
    field = Settings.model_fields.get(str(loc[0])) if loc else None
    if len(loc) > 2 and loc[0] == "apps":
        if str(loc[2]) not in AppSettings.model_fields:
            return f"{variable}: {_unknown(str(loc[2]), AppSettings.model_fields)}"
        field = AppSettings.model_fields.get(str(loc[2]))
    wants = f" (set: {field.description})" if field and field.description else ""
    return f"{variable or _PREFIX}: {message.removeprefix('Value error, ')}{wants}"
