"""A worker that reaches WeChat by a proxy alone, through TLS under an authority of one's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from certificate import Certificate
from http_proxy import HttpProxy, on_a_thread
from stage import Stages
from tls_way import tls_way

NAME = "api.weixin.qq.com"
PASSWORD = "open-sesame-77"
USERS = 150


@pytest.mark.timeout(90)
def test_what_a_proxy_refuses_is_sent_once_it_lets_through_and_nobody_is_in_doubt(
    stages: Stages, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    authority = Certificate(tmp_path / "ca", NAME)
    stage = stages(app={"templates": "off"})
    stage.form_ids(USERS)
    stage.accepts(USERS)
    proxy = HttpProxy(refusal=407)

    def said() -> str:
        """All that the unit wrote, its stderr too."""
        files = [file for log in stage.logs for file in (log, log.with_suffix(".err"))]
        return "".join(file.read_text() for file in files)

    with tls_way(stage.wechat.url, authority) as place, on_a_thread(proxy):
        proxy.places = {f"{NAME}:443": place}
        stage.unit(
            WXB_WECHAT_URL=f"https://{NAME}",
            WXB_EGRESS_CA_FILE=str(authority.path),
            WXB_EGRESS_PROXY=proxy.url.replace("//", f"//mail:{PASSWORD}@"),
        )
        broadcasts = [stage.create("template"), stage.create("subscribe")]
        eventually(lambda: "ProxyError 407" in said(), "the refusal is told", within_s=30)
        assert stage.accepted == 0
        proxy.refusal = 0
        for broadcast in broadcasts:
            assert stage.wait(broadcast, within_s=50).outcomes == {"delivered": USERS}
        for broadcast in broadcasts:
            stage.assert_sound(broadcast, USERS)
        assert set(proxy.asked) == {f"CONNECT {NAME}:443"}
        assert stage.accepted == 2 * USERS
        assert PASSWORD not in said()
