"""What a sandbox is told: everything has a default, and all of it can be changed while it runs."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from producers.sandbox.faults import FaultRule
from producers.sandbox.latency import Latency
from producers.sandbox.memory.quota import DEFAULT_QUOTAS, Quota
from producers.sandbox.memory.templates import Template
from producers.sandbox.pushes.events import Callback
from producers.sandbox.replies import Era


class TemplateApi(StrEnum):
    """What has become of ``message/wxopen/template/send``."""

    ALIVE = "alive"
    """As until 2020-01-10."""
    RETIRED = "retired"
    """45103, as replies since May 2020 show."""
    RETIRED_46101 = "retired_46101"
    """46101, as the public list of errcodes has it."""


class Taking(StrEnum):
    """Which permits or codes are good."""

    GIVEN = "given"
    """Those handed out through the control API."""
    ANY = "any"
    """Also unknown ones, on first use."""


class SandboxConfig(BaseModel):
    r"""A sandbox's config.

    Attributes:
        apps: appid to secret; None (default) takes any appid with any secret.
        token_lifetime_s: seconds an access token lives (default 7200).
        token_overlap_s: seconds a replaced token stays good, and before its end that a stable
            token is renewed (default 300).
        template_api: alive (default), retired or retired_46101.
        permits: given (default) or any: an unknown form_id is good once, an unknown prepay_id
            (``wx`` and a digit) three times, and subscriptions are without number. For benchmarks.
        codes: given (default) or any: an unknown login code makes a user of its own.
        known_openids_only: 40003 for openids that no permit, code or ``openids`` brought in.
        openids: openid to the appid that it belongs to; others' tokens get 40003.
        invalid_openids: 40003 for these.
        templates: none (default) means that every template_id is good; per API, and per app where
            they name one.
        categories: id to name, of every app (default two).
        addresses: WeChat's own, as getcallbackip and get_api_domain_ip list them (default this
            machine's).
        pages: pages of the released version, without query; None (default) means every page.
        blacklist: words that give 45168 in a subscribe message.
        strict_json: 47002 for ``\uXXXX`` escapes (default True).
        errmsg_era: the tail of errmsg: rid (default) or hint.
        quotas: path to quota; the default has WeChat's published ones.
        clears_a_month: how often clear_quota is granted (default 10).
        latency: of every answer (default none).
        faults: rules (default none).
        callback: where events are pushed; None (default) pushes nothing.
        keep_per_openid: last messages kept per openid (default 20). This and the next three
            take effect at the next reset of the deliveries.
        keep_messages: last messages kept in all (default 50,000).
        keep_arrivals: arrival times kept (default 5,000,000; 8 bytes each).
        keep_refusals: refusals kept for rid/get (default 10,000).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    apps: dict[str, str] | None = None
    token_lifetime_s: float = Field(default=7200, gt=0)
    token_overlap_s: float = Field(default=300, ge=0)
    template_api: TemplateApi = TemplateApi.ALIVE
    permits: Taking = Taking.GIVEN
    codes: Taking = Taking.GIVEN
    known_openids_only: bool = False
    openids: dict[str, str] = {}
    invalid_openids: frozenset[str] = frozenset()
    templates: tuple[Template, ...] = ()
    categories: dict[int, str] = {616: "公交", 307: "服装/鞋/箱包"}
    addresses: tuple[str, ...] = ("127.0.0.1",)
    pages: frozenset[str] | None = None
    blacklist: tuple[str, ...] = ()
    strict_json: bool = True
    errmsg_era: Era = Era.RID
    quotas: dict[str, Quota] = Field(default_factory=lambda: dict(DEFAULT_QUOTAS))
    clears_a_month: int = Field(default=10, ge=0)
    latency: Latency = Latency()
    faults: tuple[FaultRule, ...] = ()
    callback: Callback | None = None
    keep_per_openid: int = Field(default=20, ge=0)
    keep_messages: int = Field(default=50_000, ge=0)
    keep_arrivals: int = Field(default=5_000_000, ge=1000)
    keep_refusals: int = Field(default=10_000, ge=0)
