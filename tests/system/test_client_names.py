"""Whoever looks at Redis sees whose each connection is."""

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import redis
from cluster import servers
from stage import Stage

from producers import Producer
from producers.local.isolation import variables

SLOW = [
    *("broadcast", "--app", "shop", "--channel", "template", "--template-id", "T"),
    *("--audience", "all", "--data", "a", "--rate", "0.001", "--wait"),
]
"""A command that waits for longer than the test lasts."""


def test_every_connection_bears_the_name_of_its_role_and_process(
    stage: Stage, eventually: Any
) -> None:
    settings = stage.settings
    url = settings.redis_url.get_secret_value()
    unit = stage.unit()
    stage.form_ids(20)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fields = {
        "redis_url": url,
        "apps": {"shop": {"appid": "wx0000000000000001", "secret": "s"}},
        "buckets": str(settings.buckets),
        "web_port": str(port),
    }
    env = {
        **os.environ,
        **variables(fields),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with contextlib.ExitStack() as stack:
        for command in (["web"], SLOW):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "producers.cli", *command],
                    env=env,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            stack.callback(process.terminate)
        producer = stack.enter_context(Producer(settings))
        producer.broadcasts("shop")
        raws = [
            stack.enter_context(redis.Redis.from_url(one, decode_responses=True))
            for one in servers(url)
        ]

        def names() -> Counter[str]:
            found: Counter[str] = Counter()
            for raw in raws:
                mine = raw.client_id()
                found.update(one["name"] for one in raw.client_list() if int(one["id"]) != mine)
            return found

        def roles() -> set[str]:
            with contextlib.suppress(OSError):  # it opens Redis for the first who asks
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
            return {name.split("-")[1] for name in names() if name}

        everybody = {"producer", "worker", "web", "cli"}
        eventually(lambda: everybody <= roles(), f"Redis lists {everybody}")
        assert all(name.startswith("wxbroadcast-") for name in names()), names()
        workers = [name for name in names() if name.startswith("wxbroadcast-worker-")]
        assert len(workers) == 1, "of one process"
        assert unit.poll() is None
