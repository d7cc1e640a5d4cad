"""``python -m tests.bench.away URL``: a distance to a Redis, in a process of its own.

Told by JSON lines: ``{"rtt_ms": 20}`` sets the distance; each line is answered by what it is now.
"""

import sys

import orjson

from tests.support.distance import away, through


def main() -> None:
    """Serve until the lines end."""
    url = sys.argv[1]
    with away(url) as distance:
        for line in sys.stdin.buffer:
            asked = orjson.loads(line)
            if "rtt_ms" in asked:
                distance.one_way_s = asked["rtt_ms"] / 2000
            answer = {"url": through(distance, url), "trips": distance.trips}
            sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
