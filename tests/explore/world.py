"""Worlds: small enough to be walked through whole.

A world says who gave which permits, what is sent, and which faults may happen how often. Everything
else that may happen follows from what stands (see `actions`).
"""

from dataclasses import dataclass, field
from typing import Final

TEMPLATE: Final = "T"
BROADCAST: Final = "00000000002" + "0" * 10
"""Its home is lane 0, of one lane and of two."""

NEAR, NEAR_TOO, FAR = "o4", "o5", "o3"
"""Users of lane 0, and one whose lane is 1 where there are two."""


@dataclass(frozen=True)
class World:
    """One world.

    Attributes:
        name: for the command line.
        about: what it is there for.
        users: openid → what each gave, as an upload (see `producers.permits.uploads`).
        channel: of the broadcast.
        faults: fault → how many may happen in one run; see `actions`, each names its fault.
        refusals: errcodes that WeChat may answer with, each of which costs a ``refusal``.
        lanes: 1 or 2.
        canary: K.
        posts: openids who are sent a single message too.
        attempts: tries per message.
        expires_s: how long the broadcast lives.
        workers: 1 or 2.
        unsplit: whoever created the broadcast died before any lane heard of it.
    """

    name: str
    about: str
    users: dict[str, dict[str, object]]
    channel: str
    faults: dict[str, int] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()
    lanes: int = 1
    canary: int = 2
    posts: tuple[str, ...] = ()
    attempts: int = 3
    expires_s: int = 7 * 86_400
    workers: int = 2
    unsplit: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The workers' names."""
        return ("w1", "w2")[: self.workers]

    def given(self, permit: str) -> int:
        """Return how often WeChat takes a permit that was given, before any other is collected."""
        kind, _, name = permit.partition(":")
        if kind == "f":
            return 1
        if kind == "p":
            return 3
        openid = name.partition(":")[0]
        return len(self.users.get(openid, {}).get("accepts", ()))  # type: ignore[arg-type]


def forms(*users: str, each: int = 2) -> dict[str, dict[str, object]]:
    """Give each user form_ids."""
    return {user: {"formIds": [f"{user}{letter}" for letter in "abc"[:each]]} for user in users}


def prepays(*users: str) -> dict[str, dict[str, object]]:
    """Give each user a prepay_id, which is three uses."""
    return {user: {"prepayId": f"wx{user}"} for user in users}


def accepts(*users: str, each: int = 2) -> dict[str, dict[str, object]]:
    """Give each user accepts of the template."""
    return {user: {"accepts": list(range(each))} for user in users}


_ANY: Final = dict.fromkeys(
    (
        *("death", "burial", "lost", "reply", "refusal"),
        *("move", "forget", "collect", "decide", "tick"),
    ),
    1,
)
_REFUSALS: Final = (41028, 41030, 43107, 47003, 40003, 99999, 43108, 45009, 40001, -1)

WORLDS: Final = {
    world.name: world
    for world in (
        World(
            "ci",
            "one user, two form_ids: every fault of a worker, once each",
            forms(NEAR),
            "template",
            {"death": 1, "burial": 1, "lost": 1, "tick": 1},
            canary=1,
        ),
        World(
            "form",
            "one user with two form_ids: deaths, burials of the living, lost answers, lost replies",
            forms(NEAR),
            "template",
            {"death": 1, "burial": 1, "lost": 1, "reply": 1, "tick": 1},
            canary=1,
        ),
        World(
            "form-refused",
            "one user with two form_ids: each kind of refusal",
            forms(NEAR),
            "template",
            {"refusal": 1, "lost": 1, "death": 1, "tick": 1},
            refusals=(41028, 43107, 47003, 40003, 99999, 43108, 45009, 40001, -1),
            canary=1,
        ),
        World(
            "form-moved",
            "one user with two form_ids: paused, resumed, cancelled, while copies lag",
            forms(NEAR),
            "template",
            {"move": 2, "lost": 1, "death": 1, "tick": 1},
            canary=1,
        ),
        World(
            "prepay",
            "one user with a prepay_id, which cannot be repeated",
            prepays(NEAR),
            "template",
            {"death": 1, "burial": 1, "lost": 1, "reply": 1, "tick": 1},
            canary=1,
        ),
        World(
            "prepay-moved",
            "one user with a prepay_id: moves and refusals",
            prepays(NEAR),
            "template",
            {"move": 1, "refusal": 1, "death": 1, "tick": 1},
            refusals=(41028, 43108),
            canary=1,
        ),
        World(
            "accept",
            "one user with two accepts; receipts early, late and twice",
            accepts(NEAR),
            "subscribe",
            {"death": 1, "lost": 1, "refusal": 1, "receipt": 2, "tick": 1},
            refusals=(43101, 43108),
            canary=1,
        ),
        World(
            "accept-gone",
            "one user with two accepts, who is forgotten; a receipt",
            accepts(NEAR),
            "subscribe",
            {"death": 1, "lost": 1, "receipt": 1, "forget": 1, "move": 1, "tick": 1},
            canary=1,
        ),
        World(
            "accept-back",
            "one user with two accepts, who withdraws; refusals are suspects until a delivery",
            accepts(NEAR),
            "subscribe",
            {"withdraw": 1, "refusal": 1, "lost": 1, "death": 1, "move": 1, "tick": 1},
            refusals=(43101, 43108),
            canary=1,
        ),
        World(
            "two-lanes",
            "one worker, a user in each of two lanes, K = 1: the canary moves on, copies lag",
            forms(NEAR, FAR, each=1),
            "template",
            {"refusal": 1, "death": 1, "move": 1, "tick": 1},
            refusals=(41028, 43107),
            lanes=2,
            canary=1,
            workers=1,
        ),
        World(
            "message",
            "one worker; a broadcast and a single message to one user with two accepts",
            accepts(NEAR),
            "subscribe",
            {"lost": 1, "receipt": 1, "death": 1, "tick": 1},
            posts=(NEAR,),
            workers=1,
        ),
        World(
            "aside",
            "one user with a form_id, two tries: what outlives its workers is set aside",
            forms(NEAR, each=1),
            "template",
            {"death": 1, "burial": 1, "move": 1, "decide": 1, "tick": 1},
            attempts=2,
        ),
        World(
            "born",
            "two lanes, one worker: the creator died, lanes adopt and split one by one",
            forms(NEAR, FAR, each=1),
            "template",
            {"death": 1, "move": 1, "tick": 1},
            lanes=2,
            canary=1,
            workers=1,
            unsplit=True,
        ),
        World(
            "again",
            "one worker, one user with two form_ids: Redis restarts, and forgets",
            forms(NEAR),
            "template",
            {"restart": 1, "lost": 1, "death": 1, "reply": 1, "tick": 1},
            workers=1,
        ),
        World(
            "again-p",
            "one worker, one user with a prepay_id: Redis restarts, and forgets",
            prepays(NEAR),
            "template",
            {"restart": 1, "lost": 1, "death": 1, "reply": 1, "tick": 1},
            workers=1,
        ),
        World(
            "again-s",
            "one worker, one user with two accepts: Redis restarts, and forgets; a receipt",
            accepts(NEAR),
            "subscribe",
            {"restart": 1, "lost": 1, "death": 1, "receipt": 1, "tick": 1},
            workers=1,
        ),
        World(
            "again-2",
            "one worker, one user with a form_id: Redis restarts twice",
            forms(NEAR, each=1),
            "template",
            {"restart": 2, "death": 1, "tick": 1},
            workers=1,
        ),
        World(
            "forms",
            "two users with two form_ids each: deaths, burials of the living, lost answers",
            forms(NEAR, NEAR_TOO),
            "template",
            {"death": 1, "burial": 1, "lost": 1, "tick": 2},
        ),
        World(
            "refused",
            "two users with two form_ids each, K = 1: each kind of refusal",
            forms(NEAR, NEAR_TOO),
            "template",
            {"refusal": 2, "death": 1, "move": 1, "tick": 3},
            refusals=(41028, 43107, 47003, 40003, 99999, 43108, 45009, 40001, -1),
            canary=1,
        ),
        World(
            "prepays",
            "two users with a prepay_id each: what cannot be repeated",
            prepays(NEAR, NEAR_TOO),
            "template",
            {"death": 1, "burial": 1, "lost": 1, "reply": 1, "move": 1, "tick": 2},
        ),
        World(
            "accepts",
            "two users with two accepts each, and receipts: early, late, twice",
            accepts(NEAR, NEAR_TOO),
            "subscribe",
            {"death": 1, "lost": 1, "refusal": 1, "receipt": 2, "tick": 2},
            refusals=(43101, 47003),
        ),
        World(
            "mixed",
            "a user with form_ids and one with a prepay_id; one forgotten, one collects again",
            {**forms(NEAR), **prepays(NEAR_TOO)},
            "template",
            {"death": 1, "refusal": 1, "forget": 1, "collect": 1, "move": 2, "tick": 2},
            refusals=(41028, 41030),
        ),
        World(
            "lanes",
            "two lanes, K = 1: the canary moves on, a copy lags, the flood opens",
            forms(NEAR, FAR),
            "template",
            {"refusal": 1, "death": 1, "move": 2, "lag": 2, "tick": 3},
            refusals=(41028, 43107),
            lanes=2,
            canary=1,
        ),
        World(
            "carrier",
            "a broadcast and a single message to the same user, who gave two accepts",
            accepts(NEAR, NEAR_TOO),
            "subscribe",
            {"death": 1, "lost": 1, "receipt": 1, "move": 1, "tick": 3},
            posts=(NEAR,),
        ),
        World(
            "restart",
            "form_ids through a Redis that forgets: nobody twice even then",
            forms(NEAR, NEAR_TOO),
            "template",
            {"restart": 1, "lost": 1, "death": 1, "tick": 2},
        ),
        World(
            "restart-swap",
            "one worker, a user with three form_ids: a swap after a Redis that forgot",
            {**forms(NEAR, each=3), **forms(NEAR_TOO, each=1)},
            "template",
            {"restart": 1, "refusal": 1, "tick": 1},
            refusals=(41028,),
            workers=1,
        ),
        World(
            "restart-p",
            "prepay_ids through a Redis that forgets: as often again as it forgot",
            prepays(NEAR, NEAR_TOO),
            "template",
            {"restart": 1, "death": 1, "tick": 2},
        ),
        World(
            "restart-s",
            "accepts through a Redis that forgets",
            accepts(NEAR, NEAR_TOO),
            "subscribe",
            {"restart": 1, "death": 1, "receipt": 1, "tick": 2},
        ),
        World(
            "unheard",
            "a creator that died at once: two lanes hear of it, and split, one by one",
            forms(NEAR, FAR, each=1),
            "template",
            {"restart": 1, "move": 1},
            lanes=2,
            workers=1,
            unsplit=True,
        ),
        World(
            "resumed",
            "one user, K = 1: a lane's word beside moves by hand",
            forms(NEAR),
            "template",
            {"refusal": 1, "move": 2, "tick": 1},
            refusals=(43107,),
            canary=1,
            workers=1,
        ),
        World(
            "buried",
            "one worker that is taken for dead, and takes its own message once more",
            prepays(NEAR),
            "template",
            {"burial": 1, "lost": 1},
            workers=1,
        ),
        World(
            "two-for-one",
            "one user, a broadcast and a single message: whose doubt is it that a receipt ends",
            accepts(NEAR),
            "subscribe",
            {"lost": 1, "receipt": 1},
            posts=(NEAR,),
            workers=1,
        ),
        World(
            "restart-s1",
            "one user with one accept through a Redis that forgets",
            accepts(NEAR, each=1),
            "subscribe",
            {"restart": 1, "death": 1, "receipt": 1},
            workers=1,
        ),
        World(
            "prepays-k1",
            "two users with a prepay_id each, K = 1: a death before the first delivery",
            prepays(NEAR, NEAR_TOO),
            "template",
            {"death": 1, "tick": 1},
            canary=1,
            workers=1,
        ),
        World(
            "swapped",
            "two users, a form_id that is dead, and replies of Redis that are lost",
            forms(NEAR, NEAR_TOO),
            "template",
            {"reply": 1, "refusal": 1},
            refusals=(41028,),
            workers=1,
        ),
        World(
            "any",
            "two users, form_ids and a prepay_id: everything that may happen",
            {**forms(NEAR), **prepays(NEAR_TOO)},
            "template",
            _ANY,
            refusals=_REFUSALS,
            canary=1,
        ),
        World(
            "any-s",
            "two users with two accepts, a single message: everything that may happen",
            accepts(NEAR, NEAR_TOO),
            "subscribe",
            {**_ANY, "receipt": 1, "withdraw": 1},
            refusals=(43101, *_REFUSALS),
            posts=(NEAR,),
        ),
        World(
            "any-lanes",
            "two lanes, three users, nothing split yet: everything that may happen",
            {**forms(NEAR, NEAR_TOO), **prepays(FAR)},
            "template",
            _ANY,
            refusals=_REFUSALS,
            lanes=2,
            canary=1,
            unsplit=True,
        ),
        World(
            "any-restart",
            "two lanes, two users, a Redis that forgets: everything that may happen",
            {**forms(NEAR, each=3), **prepays(FAR)},
            "template",
            {**_ANY, "restart": 1},
            refusals=_REFUSALS,
            lanes=2,
        ),
        World(
            "late",
            "a broadcast that ends in a minute, while a message waits for its next attempt",
            forms(NEAR, NEAR_TOO),
            "template",
            {"lost": 1, "refusal": 1, "death": 1, "tick": 4},
            refusals=(43108,),
            expires_s=20,
        ),
    )
}
