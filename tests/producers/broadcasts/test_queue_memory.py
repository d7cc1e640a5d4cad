"""Redis memory for queued messages does not grow with the audience."""

from collections import Counter
from typing import Any, NamedTuple

from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.broadcasts.split import Splitter
from producers.settings import Settings
from producers.store import keys

BUCKETS = 4096
WINDOW = 300


class Peak(NamedTuple):
    """The most that one broadcast ever held in Redis while it was sent."""

    messages: int
    queue_bytes: int
    all_bytes: int


def openid(number: int) -> str:
    return f"oGZUI0egBJY1zhBYw2K{number:09d}"


def biggest_bucket(recipients: int) -> int:
    return max(Counter(keys.bucket_of(openid(n), BUCKETS) for n in range(recipients)).values())


def send_all(client: Any, settings: Settings, recipients: int, looks: int) -> Peak:
    """Broadcast to so many and empty the window again and again, looking now and then."""
    name = f"a{recipients}"
    rows = (openid(n).encode() for n in range(recipients))
    assert Audiences(client, settings).import_rows("shop", name, rows).added == recipients
    spec = Spec.checked(app="shop", channel="template", template_id="T", data="a,b", audience=name)
    broadcast = Broadcasts(client, settings).create(spec).id
    splitter = Splitter(client, settings)
    queue = keys.queue(0, broadcast)
    peak = Peak(0, 0, 0)
    sent = 0
    every = max(1, recipients // WINDOW // looks)
    turn = 0
    while splitter.fill(broadcast, 0) or client.llen(queue):
        if turn % every == 0:
            sizes = {
                key: client.memory_usage(key, samples=0) or 0
                for key in client.scan_iter(f"*{broadcast}*", count=10_000)
            }
            now = Peak(client.llen(queue), sizes[queue], sum(sizes.values()))
            peak = Peak(*map(max, peak, now))
        turn += 1
        sent += len(client.lpop(queue, WINDOW))
    assert sent == recipients
    return peak


def test_fifty_thousand_recipients_need_what_ten_thousand_need(
    client: Any, make_settings: Any
) -> None:
    client.flushall()
    settings = make_settings(buckets=BUCKETS)
    store.check_layout(client, settings)
    small = send_all(client, settings, 10_000, looks=8)
    large = send_all(client, settings, 50_000, looks=8)
    one_bucket = biggest_bucket(50_000)
    assert WINDOW <= small.messages <= large.messages < WINDOW + one_bucket
    bytes_each = small.queue_bytes / small.messages
    assert large.queue_bytes <= small.queue_bytes + one_bucket * bytes_each
    assert large.all_bytes <= small.all_bytes + one_bucket * bytes_each
