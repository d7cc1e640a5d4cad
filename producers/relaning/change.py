"""A change of lanes as Redis knows of it: whose turn it is, where it began, what all are told."""

from typing import Final

from producers.relaning.carrying import Bearer
from producers.settings import Layout
from producers.settings.layout import FIELDS
from producers.store import Client, is_cluster, keys
from producers.store.lanes.fence import OutlivedError, ServerChangedError, Turn
from producers.store.lanes.layout import NUMBERED
from producers.store.scripts import new_token

_RUNNER: Final = "relaner"
"""Field of `keys.DEPLOYMENT`: which run changes the lanes; the last one that began."""
_OVERTAKEN: Final = "another `wxbroadcast lanes` began later, and goes on with it: look at that one"


class Change:
    """One run's hold on a change of lanes.

    Args:
        client: Redis, not fenced (`store.connect`).
        bearer: waits for its replicas.
    """

    def __init__(self, client: Client, bearer: Bearer) -> None:
        self._client = client
        self._bearer = bearer
        self._turn: Turn = client.connection_pool.connection_kwargs["fence"]
        self._token = ""
        self._before = 0
        self._began_on: dict[str, str] = {}
        self._ending = False

    def claim(self, before: int) -> None:
        """Make a run of this: until then `hold` holds nothing.

        Args:
            before: lanes that there are.
        """
        self._token, self._before = new_token(), before

    def begin(self, before: Layout, lanes: int) -> Layout:
        """Announce it, and take over from any run that is under way; raises as `hold`."""
        self._began_on = self._servers(self._client)
        mine = {"relaning": str(lanes), _RUNNER: self._token, "layout": str(NUMBERED)}
        self._client.hset(keys.DEPLOYMENT, mapping=mine)
        has = self._client.hgetall(keys.DEPLOYMENT)
        if int(has["lanes"]) != before.count:  # another has ended it
            self._client.hdel(keys.DEPLOYMENT, "relaning", _RUNNER)
        self.hold()
        return Layout.read({field: has.get(field) for field in FIELDS})

    def hold_on_connect(self, client: Client) -> None:
        """Let each new connection hold too (`fence.Turn`), by a client of its own."""
        self._turn.held = lambda: self.hold_all(client)

    def let_go(self) -> None:
        """Hold no more on new connections."""
        self._turn.held = None

    def hold(self, client: Client | None = None) -> None:
        """Check that no other run has taken over.

        Raises:
            OutlivedError: one has, and goes on with it, or has ended it.
            ServerChangedError: Redis has forgotten that lanes are being changed.
        """
        if not self._token:
            return
        runner, count = (client or self._client).hmget(keys.DEPLOYMENT, [_RUNNER, "lanes"])
        if runner is None and count == str(self._before):
            raise ServerChangedError("Redis forgot that lanes are being changed: run it again")
        if runner != self._token:
            raise OutlivedError(_OVERTAKEN)

    def hold_all(self, client: Client | None = None) -> None:
        """Check that it is its turn, and that the servers are those that it began on.

        Another one may lack what was copied last, and go back to what there was before.

        Raises:
            OutlivedError: another run has taken over.
            ServerChangedError: a server was started anew, or another one has taken over.
        """
        self.hold(client)
        now = self._servers(client or self._client)
        for where, run in self._began_on.items():
            if now.get(where) != run:
                raise ServerChangedError(
                    f"{where} was started anew or replaced, and may lack what was copied: run it"
                    " again, and it goes on"
                )

    def write(self, layout: Layout) -> None:
        """Let all know of a layout; raises as `hold_all`."""
        self.hold_all()
        fields = layout.written()
        gone = [name for name, value in fields.items() if not value]
        gone += [] if layout.towards else [_RUNNER]
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hset(keys.DEPLOYMENT, mapping={n: v for n, v in fields.items() if v})
        if gone:
            pipeline.hdel(keys.DEPLOYMENT, *gone)
        pipeline.execute()
        if not layout.towards:
            self.let_go()
        self._bearer.await_replicas()
        self._client.publish(keys.WAKE, "lanes")  # an edge: they look each second

    def end(self, layout: Layout) -> None:
        """Let all know that it is over."""
        self._ending = True
        self.write(Layout(layout.buckets, [*layout.counts, layout.towards]))

    def has_ended(self, lanes: int) -> bool:
        """Say whether this run ended it, and did not hear so.

        Raises:
            OutlivedError: another run goes on with it, or has ended it.
        """
        runner, count = self._client.hmget(keys.DEPLOYMENT, [_RUNNER, "lanes"])
        is_whole = count == str(lanes)
        if runner not in {None, self._token} or (is_whole and not self._ending):
            raise OutlivedError(_OVERTAKEN)
        return bool(is_whole)

    @staticmethod
    def _servers(client: Client) -> dict[str, str]:
        """Return the `run_id` of each server that may be written to."""
        across = is_cluster(client)
        nodes = client.nodes() if across else {None: client}
        found = {}
        for place, node in nodes.items():
            if node.info("replication")["role"] == "master":
                where = "Redis" if place is None else "node {}:{}".format(*place)
                found[where] = str(node.info("server")["run_id"])
        return found
