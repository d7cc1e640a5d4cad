"""The tree: everything that can be set in a deployment."""

import math
import ssl
import threading
from datetime import timedelta
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AnyHttpUrl,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from producers.errors import InvalidInputError, UnknownAppError
from producers.settings import apps_file, redis_url
from producers.settings.app import AppSettings
from producers.settings.apps import Apps, AppsField
from producers.settings.apps_file import AppsFile
from producers.settings.layout import Layout
from producers.settings.links import without_links
from producers.settings.proxies import proxies
from producers.settings.values import (
    Bytes,
    Duration,
    PerDay,
    PerMinute,
    PositiveDuration,
    checked_zone,
)
from producers.times.windows import Window
from producers.times.zones import DEFAULT, zone_of

WECHAT_URL: Final = "https://api.weixin.qq.com"
PREFIX: Final = "WXB_"
APPS_FILE: Final = "apps_file"
"""The kind of a fault that lies in the apps' file."""

_LIVING: Final = threading.Lock()
"""Several threads may learn of another layout at once: none sets an older one after a newer."""


class Settings(BaseSettings):
    """Everything that can be set. Durations in the environment: seconds, or ISO 8601."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=None,
        frozen=True,
        extra="ignore",
        nested_model_default_partial_update=True,
    )
    _layout: Layout | None = PrivateAttr(default=None)

    redis_url: SecretStr = Field(
        description="redis://host:6379/0, redis+sentinel://host1,host2,host3/mymaster/0 or "
        "redis+cluster://host1,host2; rediss… for TLS"
    )
    redis_ca_file: Path | None = Field(
        None, description="certificates that Redis's own may be signed by; default: the system's"
    )
    redis_cert_file: Path | None = Field(
        None, description="certificate of ours, where Redis wants one"
    )
    redis_key_file: Path | None = Field(
        None, description="its key, where the file of the certificate does not hold it"
    )
    wechat_url: AnyHttpUrl = Field(AnyHttpUrl(WECHAT_URL), description="WeChat's base URL")
    egress_ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities that WeChat, a token_url and webhooks may "
        "have theirs from, beside the system's (SSL_CERT_FILE replaces those)",
    )
    egress_proxy: SecretStr = Field(
        SecretStr(""),
        description="HTTP proxy to them, http://user:password@host:port, but for the hosts of "
        "NO_PROXY; environment: as HTTPS_PROXY says; empty: none",
    )
    apps_file: Path | None = Field(
        None,
        description="TOML or JSON file with the apps, in place of WXB_APPS; followed while it runs",
    )
    apps: AppsField = Field(
        default_factory=Apps,
        validate_default=True,
        description='JSON: {"shop": {"appid": "wx…", "secret": "…"}}; or set WXB_APPS_FILE',
    )
    zone: str = Field(DEFAULT, description="time zone of times that are given without an offset")
    lanes: int = Field(
        16,
        ge=1,
        le=1024,
        description="units of locality; unset: as the deployment has it, a new one has these",
    )
    buckets: int = Field(
        16384,
        ge=1,
        le=1_048_576,
        description="about users / 64; a multiple of lanes, fixed at birth; unset: as lanes",
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
    redis_replicas: int = Field(
        0,
        ge=0,
        le=10,
        description="replicas that must have a claim, an outcome or permits before they count; 0: "
        "a failover may forget the last moments",
    )
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
    confirm_above: int = Field(
        0,
        ge=0,
        description="the command line asks before a broadcast to more recipients than this; "
        "0 = never",
    )
    templates_max_age: PositiveDuration = Field(
        timedelta(days=1),
        description="an app's list of templates is read anew when it is needed and older; at least "
        "a minute",
    )
    callback_max_age: Duration = Field(
        timedelta(minutes=5),
        description="how far a push's timestamp may be from Redis's clock; 0 = any",
    )
    callback_inbox: int = Field(
        100_000, ge=1, le=1_000_000, description="pushes of one app that may wait to be acted on"
    )
    webhook_timeout: PositiveDuration = Field(
        timedelta(seconds=15), description="one webhook, its answer included; 1 to 60 s"
    )
    webhook_kept: int = Field(
        10_000, ge=10, le=1_000_000, description="webhook events kept of an app, dead ones too"
    )
    webhook_bytes: Bytes = Field(
        33_554_432, ge=65_536, description="what they may take of Redis, of an app"
    )
    webhook_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description="private networks that webhooks may reach, http:// too: "
        '["10.1.0.0/16"]; else none but public addresses',
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_503,
        description="port at which a worker tells Prometheus its figures, the next free one of "
        "the 32 from there on; 0: none. The service has /metrics",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="address of that port; 0.0.0.0: reached from elsewhere"
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the environment without its service links."""
        if isinstance(env_settings, EnvSettingsSource):
            env_settings.env_vars = without_links(env_settings.env_vars)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr) -> SecretStr:
        redis_url.parsed(value.get_secret_value())
        return value

    @field_validator("egress_ca_file", "redis_ca_file")
    @classmethod
    def _authorities_are_readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=value)
            except ssl.SSLError:
                raise ValueError("holds no certificate in PEM") from None
            except OSError as error:
                raise ValueError(f"cannot be read: {error.strerror}") from None
        return value

    @field_validator("egress_proxy")
    @classmethod
    def _egress_proxy_is_one(cls, value: SecretStr) -> SecretStr:
        proxies(value.get_secret_value())
        return value

    @field_validator("redis_cert_file", "redis_key_file")
    @classmethod
    def _file_is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is no file")
        return value

    @field_validator(
        *("apps_file", "egress_ca_file", "redis_ca_file", "redis_cert_file", "redis_key_file"),
        mode="before",
    )
    @classmethod
    def _no_file_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("apps")
    @classmethod
    def _apps_are_there(cls, value: Apps, info: ValidationInfo) -> Apps:
        if info.data.get("apps_file") is None and not value:
            raise ValueError("there must be an app")
        if info.data.get("apps_file") is not None and value:
            raise ValueError("WXB_APPS_FILE is set too: all apps stand in one place, choose it")
        return value

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return checked_zone(value)

    @field_validator("post_timeout")
    @classmethod
    def _post_timeout_fits_the_lease(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=100) <= value <= timedelta(seconds=8):
            raise ValueError("must lie between 0.1 and 8 seconds (a worker's lease is 8 s)")
        return value

    @field_validator("templates_max_age")
    @classmethod
    def _templates_max_age_is_long(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1):
            raise ValueError("must be at least 60 seconds (WeChat counts the calls)")
        return value

    @field_validator("webhook_timeout")
    @classmethod
    def _webhook_timeout_is_short(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= value <= timedelta(minutes=1):
            raise ValueError("must lie between 1 and 60 seconds")
        return value

    @field_validator("ticket_life")
    @classmethod
    def _ticket_life_is_short(cls, value: timedelta) -> timedelta:
        if not timedelta(minutes=1) <= value <= timedelta(days=1):
            raise ValueError("must lie between 60 seconds and 1 day (tickets cannot be revoked)")
        return value

    @model_validator(mode="after")
    def _apps_are_whole(self) -> Self:
        private = bool(self.webhook_networks)
        if self.apps_file is not None:
            try:
                self.apps.put(apps_file.read(self.apps_file, private=private))
            except InvalidInputError as error:
                said = "\n".join(f"{self.apps_file}: {fault}" for fault in error.faults)
                raise PydanticCustomError(APPS_FILE, "{said}", {"said": said}) from None
        for fault in apps_file.webhook_faults(self.apps, private=private):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _files_of_tls_are_used(self) -> Self:
        files = (self.redis_ca_file, self.redis_cert_file, self.redis_key_file)
        if any(files) and not self.redis_url.get_secret_value().startswith("rediss"):
            raise ValueError(
                "WXB_REDIS_CA_FILE, WXB_REDIS_CERT_FILE and WXB_REDIS_KEY_FILE are of TLS: "
                "WXB_REDIS_URL must start with rediss"
            )
        if self.redis_key_file is not None and self.redis_cert_file is None:
            raise ValueError("WXB_REDIS_KEY_FILE needs WXB_REDIS_CERT_FILE")
        return self

    @model_validator(mode="after")
    def _buckets_spread_evenly(self) -> Self:
        if "lanes" not in self.model_fields_set:
            object.__setattr__(self, "lanes", math.gcd(self.lanes, self.buckets))
        if self.buckets % self.lanes:
            raise ValueError(
                f"buckets ({self.buckets}) must be a multiple of lanes ({self.lanes}): "
                "set WXB_BUCKETS or WXB_LANES"
            )
        return self

    @property
    def layout(self) -> Layout:
        """Which lanes there are now; while lanes are added another one from moment to moment."""
        return self._layout or _born(self.buckets, self.lanes)

    @property
    def lives(self) -> bool:
        """Whether the layout is known to be that of the deployment (`live_in`)."""
        return self._layout is not None

    def live_in(self, layout: Layout) -> None:
        """Take the layout of the deployment, and its lanes and buckets where they are not set.

        Whoever keeps these settings sees it, as with the apps of a file. What is older than what
        they have is not taken.
        """
        with _LIVING:
            if self._layout is not None and layout.age <= self._layout.age:
                return
            for field, value in (("lanes", layout.count), ("buckets", layout.buckets)):
                if field not in self.model_fields_set:
                    object.__setattr__(self, field, value)
            self._layout = layout

    def follow_apps(self) -> AppsFile | None:
        """Return what keeps the apps as their file says, for whoever looks; None without one."""
        if self.apps_file is None:
            return None
        return AppsFile(self.apps_file, self.apps, private=bool(self.webhook_networks))

    def app(self, alias: str) -> AppSettings:
        """Return the settings of an app.

        Raises:
            UnknownAppError: no app of that alias is set.
        """
        found = self.apps.get(alias)
        if found is None:
            raise UnknownAppError(alias, list(self.apps))
        return found

    def zone_of(self, alias: str) -> ZoneInfo:
        """Return the time zone of an app.

        Raises:
            UnknownAppError: no app of that alias is set.
        """
        return zone_of(self.app(alias).zone or self.zone)

    def window_of(self, alias: str) -> Window | None:
        """Return the hours in which an app sends broadcasts; None: at any time; as `zone_of`."""
        text = self.app(alias).send_window
        return Window.read(text, self.zone_of(alias)) if text else None

    def wechat_base(self, alias: str) -> str:
        """Return the base URL of an app's WeChat, without a trailing slash."""
        return str(self.app(alias).wechat_url or self.wechat_url).rstrip("/")


@cache
def _born(buckets: int, lanes: int) -> Layout:
    return Layout(buckets, [lanes])
