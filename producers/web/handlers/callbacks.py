"""WeChat's callbacks."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.media import TEXT
from producers.web.routing.route import SMALL, Body, Open, Reply, Route
from producers.web.traffic.threads import on_thread

CHAPTER: Final = "WeChat's callbacks"


class PushQuery(BaseModel):
    """What WeChat adds to the URL."""

    model_config = ConfigDict(extra="allow", frozen=True)

    signature: str = Field("", description="plain mode, and the URL check")
    msg_signature: str = Field("", description="secure mode")
    timestamp: str = Field("", description="epoch s")
    nonce: str = Field("", description="as it came")
    encrypt_type: str = Field("", description="aes in secure mode")
    echostr: str = Field("", description="the URL check: to be answered as it is")

    @property
    def values(self) -> dict[str, str]:
        """What was there."""
        return {name: str(value) for name, value in self.model_dump(exclude_unset=True).items()}


async def verify_url(call: Call) -> Answer:
    """Answer the console's check of the URL."""
    services = call.services
    echo = await on_thread(services.quick, services.callbacks.verify, call.app, call.query.values)
    return Answer(body=echo.encode(), media=f"{TEXT}; charset=utf-8")


async def receive_push(call: Call) -> Answer:
    """Take one push; it is acted on afterwards."""
    services = call.services  # WeChat waits five seconds: nothing slow stands before it
    await on_thread(
        services.quick, services.callbacks.receive, call.app, call.query.values, call.body
    )
    return Answer(body=b"success", media=f"{TEXT}; charset=utf-8")


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/wechat/{app}",
        verify_url,
        Open.SIGNED,
        "Answer WeChat's check of the URL",
        CHAPTER,
        {200: Reply("echostr", media=(TEXT,))},
        query=PushQuery,
        problems=(403, 422),
    ),
    Route(
        "POST",
        "/wechat/{app}",
        receive_push,
        Open.SIGNED,
        "Take a push of WeChat",
        CHAPTER,
        {200: Reply("success", media=(TEXT,))},
        body=Body(raw=True, limit=SMALL),
        query=PushQuery,
        problems=(403, 415, 422),
        text="Plain, compatible and secure mode, JSON and XML; signed by WeChat.",
    ),
)
