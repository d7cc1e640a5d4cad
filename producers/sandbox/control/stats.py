"""The counts of a sandbox as one JSON object."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from producers.sandbox.state import State

_Name = TypeVar("_Name", bound=StrEnum)


def describe(state: State, pushes: Mapping[str, int]) -> dict[str, Any]:
    """Gather the counts.

    Args:
        state: the sandbox's state.
        pushes: the counts of its pusher.

    Returns:
        accepted (messages), recipients, duplicates, duplicate_openids, duplicate_examples;
        requests; by_errcode (WeChat's verdicts, also those that a fault swallowed); apis (path to
        requests and by_errcode); tokens; permits; windows; events.
    """
    total: Counter[int] = Counter()
    for counts in state.errcodes.values():
        total.update(counts)
    permits = state.permits
    return {
        **state.deliveries.describe(),
        "requests": state.requests.total(),
        "by_errcode": _by_code(total),
        "apis": {
            path: {
                "requests": count,
                "by_errcode": _by_code(state.errcodes.get(path, Counter())),
            }
            for path, count in sorted(state.requests.items())
        },
        "tokens": {
            "issued": _by_name(state.tokens.issued),
            "forced": state.tokens.forced,
            "good": state.tokens.count_good(state.now()),
        },
        "permits": {
            "given": _by_name(permits.given),
            "used": _by_name(permits.used),
            "remaining": _by_name(permits.remaining),
        },
        "windows": state.arrivals.describe(),
        "events": dict(pushes),
    }


def _by_code(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(code): count for code, count in sorted(counts.items())}


def _by_name(counts: Mapping[_Name, int]) -> dict[str, int]:
    # the JSON encoder wants plain strings for keys
    return {name.value: count for name, count in counts.items()}
