"""Real units whose Redis is 20 ms away, and a producer as far: all comes right."""

import pytest
from distance import away, through
from pydantic import SecretStr
from stage import Stage

from producers import store
from producers.broadcasts import Broadcasts

RTT_MS = 20
USERS = 600


@pytest.mark.one_server
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_a_broadcast_from_far_away_by_units_far_away_ends_right(stage: Stage, channel: str) -> None:
    url = stage.settings.redis_url.get_secret_value()
    stage.permits(channel, USERS)
    with away(url, RTT_MS) as distance:
        far_url = through(distance, url)
        units = [stage.unit(WXB_REDIS_URL=far_url) for _ in range(2)]
        secrets = {"redis_url": SecretStr(far_url)}
        far = stage.settings.model_copy(update=secrets)
        client = store.connect(far)
        try:
            broadcast = Broadcasts(client, far).create(stage.spec(channel)).id
        finally:
            client.close()
        status = stage.wait(broadcast)
        stage.assert_sound(broadcast, USERS)
        assert status.outcomes == {"delivered": USERS}
        for unit in units:  # before the way that they go
            stage.kill(unit)
