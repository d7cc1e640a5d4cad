"""One process that splits, for `split`: told by lines, on the measured core.

Arguments: URLs of Redis and WeChat, seconds of the window. Told a broadcast (``broadcast``), it
fills the window once and answers what it moved, the seconds that took, and its resident memory.
"""

import os
import sys
import time
from datetime import timedelta

import orjson

from producers import logs, store
from producers.broadcasts.split import Splitter

from .cost import rss_mb
from .ground import settings


def _serve(redis_url: str, wechat_url: str, window_s: str) -> None:
    logs.silence()
    own = settings(redis_url, wechat_url, lanes=1, window=timedelta(seconds=int(window_s)))
    splitter = Splitter(store.connect(own), own)
    for line in sys.stdin:
        began = time.perf_counter()
        moved = splitter.fill(orjson.loads(line)["broadcast"], 0)
        took_s = time.perf_counter() - began
        answer = {"moved": moved, "seconds": took_s, "rss_mb": rss_mb([os.getpid()])}
        sys.stdout.write(orjson.dumps(answer).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
