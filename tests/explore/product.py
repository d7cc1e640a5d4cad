"""The product on the model's clock: its own scripts, its own callers, a server of this process.

Nothing of it is rewritten. What is replaced: the clock, chance (jitter, ids), the event loop's
waiting, the log; what Python keeps between two calls lies in the state, and is put into the
product's objects before each.
"""

import contextlib
import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from unittest import mock

from producers import logs
from producers.broadcasts import Broadcasts, birth, create, messages
from producers.broadcasts.jobs import Jobs
from producers.broadcasts.lifecycle import Adopted
from producers.broadcasts.messages import Messages
from producers.broadcasts.spec import Spec
from producers.broadcasts.split import Splitter
from producers.local.isolation import isolated
from producers.permits.collect import Collector
from producers.recipients.doubts import Doubts
from producers.recipients.receipts import Receipts
from producers.store import keys, scripts
from producers.store.scripts import Bound
from producers.users import forget as forgetting
from producers.users.forget import Forgetter
from workers.duties.epochs import Epochs
from workers.duties.flights import Flights
from workers.duties.peers import BEAT, BeatArgs, BeatKeys
from workers.duties.recover import Recoverer
from workers.lanes.keeper import Keeper
from workers.sending import settle
from workers.sending.hands import Hands
from workers.sending.posting import POSTING
from workers.sending.settle import SETTLE, Settler
from workers.sending.take import Taker

from .state import State, WeChat, Worker, budget, canonical
from .valkey import MODEL_MS, Form, Valkey
from .world import BROADCAST, TEMPLATE, World

APP: Final = "shop"
BUCKETS: Final = 8

_STEERS_NOTHING: Final = (
    "}:pace:",
    "}:keeper",
    "{wxb:jobs}",
    "{wxb:templates}",
    ":key:",
    "}:posted:",
)
_FIELDS: Final = frozenset({"move_token", "move", "paced_ms"})


def form(world: World) -> Form:
    """Return what of Redis is part of a state of a world."""

    def steers(name: str, fields: dict[str, str]) -> dict[str, str]:
        if "}:lane:" not in name or fields.get("open") != "1":
            return fields
        found = {
            **fields,
            "unjudged": "0",
        }  # counted until the first delivery, and never closed again
        if world.lanes == 1:
            found.pop("told", None)  # to the other lanes
        return found

    return Form(
        lambda name: any(word in name for word in _STEERS_NOTHING),
        lambda field: field in _FIELDS,
        steers,
    )


class AtHome(Broadcasts):
    """Broadcasts that reach no lane by themselves: whoever made or moved one died just after it."""

    def _begin(self, broadcast: str, size: int) -> None:
        pass

    def _adopt_where_it_may(self, broadcast: str) -> Adopted:
        return Adopted(Spec.from_json(self._home(broadcast)["spec"]).app, is_whole=True)


class _NoNet:
    """The net below the keeper is not cast: every need must have been written."""

    def some(self, *, casts: bool) -> list[str]:  # noqa: ARG002
        return []

    def forget_orphan(self, broadcast: str, now_ms: int) -> None:  # noqa: ARG002
        raise AssertionError(f"no home: {broadcast}")


class _Server:
    """A client of one worker, to whom the server says which run it is."""

    def __init__(self, product: "Product") -> None:
        self._product = product

    def __getattr__(self, name: str) -> Any:
        return getattr(self._product.valkey.client, name)

    def info(self, section: str) -> dict[str, Any]:  # noqa: ARG002
        return {"run_id": f"run{self._product.run}", "uptime_in_seconds": 1}


class Product:
    """The product in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now_ms = MODEL_MS
        self.run = 1
        self.seed = ""
        self.valkey = Valkey(form(world))
        client = self.valkey.client
        client.time = lambda: (self.now_ms // 1000, self.now_ms % 1000 * 1000)
        self.settings = isolated(
            {
                "redis_url": "redis://127.0.0.1:1/0",  # never connected to
                "apps": {APP: {"appid": "wx0000000000000001", "secret": "shop-secret"}},
                "buckets": BUCKETS,
                "lanes": world.lanes,
                "canary": world.canary,
                "attempts": world.attempts,
            }
        )
        settings = self.settings
        self.broadcasts = Broadcasts(client, settings)
        self.at_home = AtHome(client, settings)
        self.keeper = Keeper(client, settings, self.broadcasts, "k")
        self.keeper._net = _NoNet()  # type: ignore[assignment]
        self.recoverer = Recoverer(client, settings, self.broadcasts)
        alone: Any = self.valkey.one_trip
        self.recoverer_alone = Recoverer(alone, settings, self.broadcasts)
        self.collector = Collector(client, settings)
        self.messages = Messages(client, settings)
        self.receipts = Receipts(client, settings)
        self.forgetter = Forgetter(client, settings)
        self.doubts = Doubts(client, settings)
        self.splitter = Splitter(client, settings)
        self.beat = BEAT.on(alone)
        self.posting = POSTING.on(alone)
        self.settling = SETTLE.on(alone)
        self._epochs = Epochs(_Server(self), settings, self.broadcasts)
        self.settlers = {
            name: Settler(
                client, settings, name, self.broadcasts.ttl_ms, Hands(1000), lambda *_: None
            )
            for name in world.names
        }
        self.takers = {
            name: Taker(alone, settings, name, self.broadcasts.ttl_ms) for name in world.names
        }

    def close(self) -> None:
        """Stop the server."""
        self.valkey.close()

    # -- what a worker's objects are, with what it remembers -----------------------------------

    def settler(self, worker: Worker) -> tuple[Settler, Hands, list[str]]:
        """Return a worker's settler, its hands, and the flags that it will be given."""
        hands, flags = Hands(1000), list[str]()

        def flagged(_app: str, broadcast: str, lane: int, flag: str) -> None:
            flags.append(f"{broadcast} {lane} {flag}")

        settler = self.settlers[worker.name]
        settler._hands, settler._on_flag = hands, flagged
        return settler, hands, flags

    def epochs(self, worker: Worker) -> Epochs:
        """Return what a worker knows of Redis's runs."""
        epochs = self._epochs
        epochs._server = f"run{worker.server}" if worker.server else ""  # just born
        epochs._acknowledged_ms = worker.beaten_at
        epochs.changed_at_ms = worker.changed_at
        return epochs

    def flights(self, worker: Worker, back: Any, give_up: Any) -> Flights:
        """Return what looks at flights for a worker."""
        peers = mock.Mock()
        peers.server_time = lambda: self.now_ms / 1000
        hands = Hands(1000)
        hands.take([held.claim for held in worker.hands])
        epochs = self.epochs(worker)
        return Flights(
            self.recoverer, epochs, peers, worker.name, hands, lambda _: False, back, give_up
        )

    def look_after(self, lane: int | None) -> None:
        """One pass of the keeper, over one lane or all."""
        keeper = self.keeper
        keeper._todo.clear()
        keeper._held.clear()
        keeper._quiet.clear()
        for other in self.settings.layout.lanes:
            if lane not in {None, other}:
                keeper._quiet[other] = math.inf
        keeper.run()

    def beats(self, name: str) -> None:
        """Let a worker beat."""
        self.beat(BeatKeys(keys.WORKERS, keys.SEEN), BeatArgs(name))

    # -- how it begins --------------------------------------------------------------------------

    def first(self) -> State:
        """Return the world's first state: permits are given, the broadcast is created."""
        # a beat is asked for when Redis was another one, and by nobody else
        beaten_at = self.now_ms if "restart" in self.world.faults else 0
        return canonical(
            State(
                redis=without_replies(self.valkey.fresh(self.now_ms, self._begin)),
                now=self.now_ms,
                workers=tuple(Worker(name, beaten_at=beaten_at) for name in self.world.names),
                wechat=WeChat(),
                budget=budget(self.world.faults, self.world.together),
            )
        )[0]

    def _begin(self) -> None:
        self.valkey.client.set(keys.SERVER, f"run{self.run}")
        for name in self.world.names:
            self.beats(name)
        for openid in self.world.users:
            self.give(openid)
        content = {"keyword1": "a"} if self.world.channel == "template" else {"thing1": "a"}
        fields: dict[str, Any] = {"app": APP, "channel": self.world.channel, "data": content}
        spec = Spec.checked(
            **fields,
            template_id=TEMPLATE,
            audience="all",
            expires_in=timedelta(seconds=self.world.expires_s),
        )
        (self.at_home if self.world.unsplit else self.broadcasts).create(spec)
        for openid in self.world.posts:
            self.messages.post(**fields, template_id=TEMPLATE, openid=openid, key="k")

    def give(self, openid: str, *, anew: bool = False) -> None:
        """Let a user give what it gives; anew: accepts have no identity, so it gives none again."""
        upload = dict(self.world.users[openid])
        accepted = upload.pop("accepts", ())
        if upload:
            self.collector.collect(APP, [{"openid": openid, **upload}])
        for number in accepted if not anew else ():  # type: ignore[attr-defined]
            given = {"openid": openid, "subscriptions": {TEMPLATE: "accept"}, "id": str(number)}
            self.collector.collect(APP, [given])


def without_replies(part: Any) -> Any:
    """Return what Redis holds without the answers that nobody will ask for again."""
    return part.changed(dict.fromkeys(name for name in part.keys if "}:reply:" in name))


class _Chance:
    """No jitter."""

    @staticmethod
    def randrange(_most: int) -> int:
        return 0

    @staticmethod
    def random() -> float:
        return 0.5


@contextlib.contextmanager
def laid(world: World) -> Iterator[Product]:
    """Give the product in a world, on the model's clock."""
    argv = Bound.argv

    def timed(self: Any, args: Any, more: Any = (), *, token: str = "", now: Any = "") -> Any:
        return argv(self, args, more, token=token, now=now or product.now_ms)

    def now(*_args: Any) -> int:
        return product.now_ms

    secrets = mock.Mock()
    secrets.token_hex = lambda _bytes: product.seed
    instead: list[tuple[Any, str, Any]] = [
        (logs, "emit", _nothing),
        (Jobs, "split", _nothing),
        (settle, "random", _Chance),
        (forgetting, "secrets", secrets),
        (birth, "new_id", _the_id),
        (scripts.Bound, "argv", timed),
        (create, "glance", _nothing),
        (messages.Messages, "_server_ms", now),
        (Epochs, "_check_one_server", _nothing),
    ]
    with contextlib.ExitStack() as stack:
        for target, name, by in instead:
            stack.enter_context(mock.patch.object(target, name, by))
        product = Product(world)
        stack.callback(product.close)
        yield product


def _nothing(*_args: Any) -> None:
    """Do nothing."""


def _the_id() -> str:
    return BROADCAST
