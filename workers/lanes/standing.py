"""How a broadcast stands, at its home and in every lane, read in one trip with others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from producers.broadcasts import Broadcasts
from producers.store import Client, keys
from producers.words import ENDED, State

_HOME: Final = (
    "state",
    "generation",
    "expires_at_ms",
    "drop",
    "canary_lane",
    "app",
    "starts_at_ms",
    "move_token",
)
_SPLIT: Final = {"done", "mail"}
"""Of a lane's copy: all that it will have so far is queued."""

MET: Final = ("template_errors", "refusals", "unknowns")
"""What a canary has met, in a lane's copy."""
_COPY: Final = ("generation", "state", "move", "split", "done", "total", "open", "told", *MET)


@dataclass(frozen=True, slots=True)
class Standing:
    """A broadcast as it stands at its home and in every lane.

    Attributes:
        home, copies: what was read of it.
        shut: the lane that is being divided: it can be read only; None: there is none.
    """

    home: Mapping[str, str | None]
    copies: Mapping[int, Mapping[str, str | None]]
    shut: int | None = None

    @property
    def is_behind(self) -> bool:
        """Whether a lane has not adopted the newest generation that could do so now."""
        return any(lane != self.shut for lane in self._behind)

    @property
    def waits_for_shut(self) -> bool:
        """Whether the lane that is being divided has not adopted the newest generation."""
        return self.shut in self._behind

    @property
    def _behind(self) -> list[int]:
        newest = int(self.home["generation"] or -1)
        return [
            lane for lane, copy in self.copies.items() if int(copy["generation"] or -1) < newest
        ]

    @property
    def is_ahead(self) -> bool:
        """Whether a lane knows what the home does not; perhaps only when the home was read."""
        return any(map(self._knows_more, self.copies.values()))

    def _knows_more(self, copy: Mapping[str, str | None]) -> bool:
        """Say whether adopt.lua would say so."""
        at, known = (int(one["generation"] or -1) for one in (self.home, copy))
        state, move = self.home["state"], self.home["move_token"] or ""
        if copy["state"] in ENDED - {State.FINISHED} and state not in ENDED:
            return True
        of, _, last = (copy["move"] or "").partition(" ")
        is_other = copy["state"] != state or (of == str(known) and last != move)
        return known > at or (known == at and is_other)

    @property
    def is_complete(self) -> bool:
        """Whether every lane has settled everyone."""
        return all(is_through(copy) and copy["split"] != "mail" for copy in self.copies.values())

    @property
    def is_short(self) -> bool:
        """Whether a lane has not settled everyone, though each still has its copy."""
        has_all = all(copy["generation"] is not None for copy in self.copies.values())
        return has_all and not self.is_complete


def is_through(copy: Mapping[str, str | None]) -> bool:
    """Say whether a lane has settled everyone that it has so far."""
    return copy["split"] in _SPLIT and int(copy["done"] or 0) >= int(copy["total"] or 0)


def read(
    client: Client,
    broadcasts: Broadcasts,
    lanes: Sequence[int],
    some: Sequence[str],
    shut: int | None = None,
) -> dict[str, Standing]:
    """Return how some broadcasts stand, without those of which a node of a cluster lost a part.

    Nothing stands in a lane that was divided meanwhile: who concludes something of that looks anew
    which lanes there are.

    Raises:
        redis.RedisError: Redis answered nothing.
    """
    pipeline = client.pipeline(transaction=False)
    for broadcast in some:
        pipeline.hmget(keys.home(broadcasts.home_lane(broadcast), broadcast), _HOME)
        for lane in lanes:
            pipeline.hmget(keys.lane_broadcast(lane, broadcast), _COPY)
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    if answers and all(isinstance(answer, Exception) for answer in answers):
        raise answers[0]
    each = 1 + len(lanes)
    return {
        broadcast: Standing(
            dict(zip(_HOME, answers[place * each], strict=True)),
            {
                lane: dict(zip(_COPY, copy, strict=True))
                for lane, copy in zip(
                    lanes, answers[place * each + 1 : (place + 1) * each], strict=True
                )
            },
            shut,
        )
        for place, broadcast in enumerate(some)
        if not any(isinstance(one, Exception) for one in answers[place * each :][:each])
    }
