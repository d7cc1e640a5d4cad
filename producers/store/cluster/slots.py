"""The slots of a cluster: which node serves which, as this process knows it.

What it knows may be old: a node that is asked for another one's slot says where it is now (MOVED),
and one that does not answer is *doubted*, so that the map is read anew before it is asked again.
Nothing here speaks to anybody. The map is replaced as a whole: who reads it needs no lock.

Source of the facts: Redis cluster specification; Valkey docs, CLUSTER SLOTS.
"""

import random
import time
from collections.abc import Sequence
from typing import Any, Final

from redis.crc import key_slot

from producers.store.patience import Place
from producers.store.primary import NotDoneError

SLOTS: Final = 16_384

_EVALS: Final = frozenset(("EVALSHA", "EVAL", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO"))

_ANYWHERE: Final = frozenset(
    (
        *("TIME", "PUBLISH", "INFO", "PING", "ECHO", "DBSIZE", "SCAN", "KEYS", "RANDOMKEY", "ROLE"),
        *("FLUSHALL", "FLUSHDB", "WAIT", "WAITAOF", "LASTSAVE", "COMMAND", "ASKING"),
        *("SAVE", "BGSAVE", "BGREWRITEAOF"),
    )
)
"""Commands that concern no key; and those of two words, such as CONFIG GET."""

_OF_KEYS: Final = ("OBJECT", "MEMORY USAGE", "XINFO", "XGROUP")

_GUARDED: Final = (
    "do local guard = table.remove(KEYS) if guard and redis.call('EXISTS', guard) == 1 then "
    "return redis.error_reply('FENCED: the lane was divided') end end "
)

_READ_ANEW_S: Final = 0.1
"""The map is read at most as often; while a slot moves it is not newer by then anyway."""
_STALE_S: Final = 1.0
"""As often after a MOVED, which has told the place of its own slot."""
_DOUBTED_S: Final = 10.0
"""Where any node will do, one that did not answer is not asked for so long."""


class MovingError(NotDoneError):
    """The slot is on its way, or nobody serves it just now; nothing was done."""


def slot_of(args: Sequence[Any]) -> int | None:
    """Return the slot of a command's first key; None: any node will do.

    Args:
        args: the command's name, then what follows it, as redis-py sends it.
    """
    name = args[0]
    if name in _EVALS:
        return slot_of_key(args[3]) if int(args[2]) else None
    if name in _ANYWHERE or (" " in name and not name.startswith(_OF_KEYS)) or len(args) == 1:
        return None
    return slot_of_key(args[1])


def slot_of_key(key: Any) -> int:
    """Return the slot of a key."""
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def whole(script: str | bytes) -> str:
    """Return a script's text as it runs with the key of `with_guard`, which it does not see.

    Where that key is there, the script is refused before it begins (`lanes.fence`).
    """
    text = _text(script)
    first, _, rest = text.partition("\n")
    if first.startswith("#!"):
        return f"{first}\n{_GUARDED}{rest}"
    return _GUARDED + text


def with_guard(args: tuple[Any, ...], mark: str) -> tuple[Any, ...]:
    """Return a command; a script's with one more key of its slot, which does not exist.

    While a slot moves key by key (MIGRATE), each node has some of its keys, and a script that finds
    its way to one of the others fails in the middle. With a declared key that is missing the node
    refuses it before it begins (TRYAGAIN), on both sides, until the slot is whole again.

    Args:
        args: the command's name, then what follows it, as redis-py sends it.
        mark: what its name ends with: that of `keys.shut` is there where a lane was divided, so
            that a script is refused in the slot itself, wherever that lies.
    """
    if args[0] != "EVALSHA" or not int(args[2]):
        return args
    end = 3 + int(args[2])
    key = str(args[3])
    opened = key.find("{")
    closed = key.find("}", opened + 1)
    # it begins as the others do: what a user may touch (ACL) is told by the beginning of a name
    tagged = key[: closed + 1] if opened >= 0 and closed > opened + 1 else f"{{{key}}}"
    return ("EVALSHA", args[1], end - 2, *args[3:end], f"{tagged}:{mark}", *args[end:])


class Slots:
    """What is known of one cluster.

    Args:
        seeds: nodes that the URL names.

    Attributes:
        ids: of the nodes, by which the cluster knows them wherever they are.
        replicated: the primaries that have a replica.
    """

    def __init__(self, seeds: Sequence[Place]) -> None:
        self._seeds = tuple(seeds)
        self._places: list[Place | None] = []
        self._primaries: tuple[Place, ...] = ()
        self._known: tuple[Place, ...] = ()
        self._read_at = float("-inf")
        self._moved = False
        self._doubted: dict[Place, float] = {}
        self.ids: dict[Place, str] = {}
        self.replicated: frozenset[Place] = frozenset()

    @property
    def known(self) -> bool:
        """Whether the map was ever read."""
        return bool(self._places)

    def place(self, slot: int | None) -> Place:
        """Return who serves a slot; of none, a node that answered when it was asked last.

        Raises:
            MovingError: nobody does, as far as the nodes know.
        """
        found = self._anywhere() if slot is None else self._places[slot]
        if found is None:
            which = "any slot" if slot is None else f"slot {slot}"
            raise MovingError(f"no node of the cluster serves {which}")
        return found

    def drawn(self) -> Place:
        """Return any node, by lot; none that did not answer lately, where there is another."""
        good = [place for place in self._primaries if not self._is_doubted(place)]
        return random.choice(good or self._primaries)  # noqa: S311

    def primaries(self) -> tuple[Place, ...]:
        """Return the nodes that serve slots, in the order of the first slot that they serve."""
        return self._primaries

    def nodes(self) -> tuple[Place, ...]:
        """Return all nodes, replicas too."""
        return self._known

    def is_due(self, slot: int | None) -> bool:
        """Say whether the map is to be read before this slot's node is asked."""
        if not self._places:
            return True
        since = time.monotonic() - self._read_at
        place = self._anywhere() if slot is None else self._places[slot]
        if place is None or self._doubted.get(place, float("-inf")) > self._read_at:
            return since >= _READ_ANEW_S
        return self._moved and since >= _STALE_S

    def to_ask(self) -> list[Place]:
        """Return whom to ask for the map: those known, in any order, the seeds, the doubted."""
        some = list(self._known)
        random.shuffle(some)
        return sorted(dict.fromkeys((*some, *self._seeds)), key=self._is_doubted)

    def begin(self) -> None:
        """Note that the map is being read."""
        self._read_at = time.monotonic()

    def learn(self, reply: Sequence[Any], asked: Place) -> None:
        """Take the answer to CLUSTER SLOTS: ``[first, last, [host, port, …], replicas …] …``.

        A node that does not know its own address gives none: it is the one that was asked.
        """
        places: list[Place | None] = [None] * SLOTS
        primaries: dict[Place, None] = {}
        known: dict[Place, None] = {}
        ids: dict[Place, str] = {}
        replicated = set()
        for first, last, *nodes in sorted(reply, key=lambda one: int(one[0])):
            found = [_place(node, asked) for node in nodes]
            primaries[found[0]] = None
            if len(found) > 1:
                replicated.add(found[0])
            known.update(dict.fromkeys(found))
            ids.update(zip(found, (_text(node[2]) for node in nodes), strict=True))
            places[int(first) : int(last) + 1] = [found[0]] * (int(last) - int(first) + 1)
        self._places, self._primaries, self._known = places, tuple(primaries), tuple(known)
        self.ids = ids
        self.replicated = frozenset(replicated)
        self._moved = False

    def move(self, slot: int, place: Place) -> None:
        """Take a MOVED: the slot is there for good."""
        if self._places:
            self._places[slot] = place
        self._moved = True

    def doubt(self, place: Place) -> None:
        """Have the map read before it is asked again; where any will do, others are asked."""
        self._doubted[place] = time.monotonic()

    def _anywhere(self) -> Place | None:
        """Return always the same node while it answers."""
        good = (place for place in self._primaries if not self._is_doubted(place))
        return next(good, next(iter(self._primaries), None))

    def _is_doubted(self, place: Place) -> bool:
        since = self._doubted.get(place)
        return since is not None and time.monotonic() - since < _DOUBTED_S


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _place(node: Sequence[Any], asked: Place) -> Place:
    host = _text(node[0] or "")
    return (host if host and host != "?" else asked[0], int(node[1]))
