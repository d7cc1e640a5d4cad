"""Following: what names lanes, done anew where one of them was divided meanwhile.

A script that meets such a lane is refused before it begins, and nothing of it was done. A plain
read is not: for some seconds it finds what was there when the lane was shut, then nothing. What is
done anew reads from the settings which lanes there are.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from producers.errors import LaneDividedError, StoreUnavailableError, WxbroadcastError
from producers.settings import Settings
from producers.store import Client, deadline
from producers.store.connection import fence_of
from producers.store.lanes.fence import Fence
from producers.store.lanes.layout import follow
from producers.store.retry import repeat

_PAUSE_S: Final = 0.1
_LONGEST_S: Final = 60.0
"""So long it waits where there is no deadline: many times as long as a lane takes."""

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")


def lanes_now(client: Client, settings: Settings) -> tuple[int, ...]:
    """Return the lanes that there were when something was read, or later.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    fence = fence_of(client)
    if isinstance(fence, Fence) and fence.is_unsure:
        fence.is_unsure = False
        try:
            _look(client, settings)
        except BaseException:
            fence.is_unsure = True
            raise
    return settings.layout.lanes


def _look(client: Client, settings: Settings) -> None:
    if settings.lives:  # else nobody said that they are of this deployment (`check_layout`)
        repeat("looking at the lanes", lambda: follow(client, settings))


def anew(client: Client, settings: Settings, do: Callable[[], R]) -> R:
    """Do something, and again while a lane refuses it: at once where there are other lanes by now.

    Raises:
        LaneDividedError: a lane took longer than the call has, or its caller does not wait.
    """
    until = time.monotonic() + _LONGEST_S
    while True:
        known = settings.layout
        try:
            return do()
        except LaneDividedError:
            # else what is known stays true: nothing was done, for a lane is being divided
            with contextlib.suppress(StoreUnavailableError):
                _look(client, settings)
            if settings.layout != known:  # whoever learned it
                continue
            left_s = deadline.left_s()
            left_s = until - time.monotonic() if left_s is None else left_s
            if left_s < 2 * _PAUSE_S or not deadline.waits():  # as long again to try it in
                raise
            time.sleep(_PAUSE_S)


def reading(client: Client, settings: Settings, look: Callable[[], R]) -> R:
    """Read what lies in lanes, and again where others are known at the end than at the beginning.

    Nothing is asked for that but by a new connection: whoever reads what is no longer there has
    learned of it by the one that it read over (`fence`), or in the second in which it was asked.

    Raises:
        LaneDividedError: as `anew`.
    """

    def steadily() -> R:
        while True:
            lanes = settings.layout.lanes
            try:
                found = look()
            except LaneDividedError:
                raise
            except WxbroadcastError:  # not found, perhaps, where it was looked for
                if lanes_now(client, settings) == lanes:
                    raise
            else:
                if lanes_now(client, settings) == lanes:
                    return found

    return anew(client, settings, steadily)


def following(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], R]:
    """Let a method be done `anew`; what it has done before changes nothing the second time.

    Its object has ``_client`` and ``_settings``.
    """

    @wraps(method)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return anew(self._client, self._settings, lambda: method(self, *args, **kwargs))

    return run


def steady(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], R]:
    """As `following`, for a method that reads (`reading`)."""

    @wraps(method)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return reading(self._client, self._settings, lambda: method(self, *args, **kwargs))

    return run


def by_lane(
    client: Client,
    settings: Settings,
    buckets: Mapping[int, V],
    do: Callable[[int, dict[int, V]], int],
) -> int:
    """Do something with what is about buckets, lane by lane; return the sum of what it returns.

    What a lane refused is done in those that it was divided into; nothing is done twice.

    Raises:
        LaneDividedError: as `anew`; what `do` did not return from was not done.
    """
    left, total = dict(buckets), 0

    def go() -> None:
        nonlocal total
        while left:
            layout = settings.layout
            lane = layout.of_number(next(iter(left)))
            some = {bucket: left[bucket] for bucket in left if layout.of_number(bucket) == lane}
            total += do(lane, some)
            for bucket in some:
                del left[bucket]

    anew(client, settings, go)
    return total


def each_lane(client: Client, settings: Settings, do: Callable[[int], R]) -> dict[int, R]:
    """Do something in each lane; return lane → what it returns, of the lanes that there are then.

    In those that a lane is divided into meanwhile it is done again, which is to be harmless.

    Raises:
        LaneDividedError: as `anew`; `do` has returned from other lanes.
    """
    found: dict[int, R] = {}

    def go() -> dict[int, R]:
        while True:
            lanes = settings.layout.lanes
            lane = next((lane for lane in lanes if lane not in found), None)
            if lane is None:
                return {lane: found[lane] for lane in lanes}
            done = do(lane)
            if lane in lanes_now(client, settings):  # else it was perhaps not there any more
                found[lane] = done

    return anew(client, settings, go)


class Watch:
    """Says whether a long read over lanes, which cannot begin anew, missed anything.

    Attributes:
        lanes: those that there are when it begins.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        _look(client, settings)
        self.lanes = settings.layout.lanes

    def check(self, what: str) -> None:
        """Look at the end whether all lanes of the beginning were there to be read.

        Raises:
            LaneDividedError: one was divided meanwhile; it says to do `what` again.
            StoreUnavailableError: Redis did not answer.
        """
        _look(self._client, self._settings)
        if self._settings.layout.lanes != self.lanes:
            raise LaneDividedError(
                f"lanes were added meanwhile, and what was read lacks some: {what}"
            )
