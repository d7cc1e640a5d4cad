"""Whoever meets a lane that is just being divided waits for its heirs, and does all of it, once."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
import redis
from shop import TEMPLATE, Shop
from webhook_end import of_app

from producers import store
from producers.access.door import Door
from producers.care.audit import Auditor
from producers.errors import LaneDividedError
from producers.permits import ledger
from producers.planning.forecast import Forecaster
from producers.planning.plan import Planner
from producers.recipients import Recipients
from producers.recipients.doubts import Doubts
from producers.recipients.receipts import Receipts
from producers.relaning import Relaner
from producers.relaning import leaving as leaving_module
from producers.relaning import moving as moving_module
from producers.relaning.moving import Mover
from producers.retries import Retries
from producers.settings import Settings
from producers.store import deadline, keys
from producers.store.lanes import following as following_module
from producers.suppressions import Suppressions
from producers.users import Users
from producers.webhooks import DeadLetters
from producers.webhooks.outbox import Outbox
from producers.webhooks.wishes import Wishes
from workers.sending.claim import Claim

pytestmark = pytest.mark.cluster

BEFORE, AFTER = 2, 8
USERS = [f"o{n:03}" for n in range(60)]
APP = of_app("https://hooks.example/", webhook_events=["message.settled"])


class Meeting:
    """What somebody wants of a shop, once while nothing else is, and once while lanes divide."""

    def __init__(
        self, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._make_settings, self._patch = make_settings, monkeypatch
        self._opened: list[Any] = []

    def shop(self, client: Any, before: Callable[[Shop], str]) -> tuple[Shop, str]:
        client.flushall()
        settings = self._make_settings(app=APP, lanes=BEFORE)
        mine = store.connect(settings, role="producer")
        self._opened.append(mine)
        store.check_layout(mine, settings)
        Wishes(mine, settings).tell()
        shop = Shop(mine, settings)
        for user in USERS:
            shop.give(user, formIds=[f"{user}a", f"{user}b"])
            shop.give(user, subscriptions={TEMPLATE: "accept"}, id="1")
        return shop, before(shop)

    def amid(self, shop: Shop, does: Callable[[], Any], *, shut_s: float = 0.3) -> Any:
        """Do it from the moment when the first lane is shut; returns what it returns.

        The lane is shut until that is done, or for so long.
        """
        free = store.connect(shop.settings, fenced=False)
        self._opened.append(free)
        divide, met = Mover.divide, []

        with ThreadPoolExecutor(1) as pool:

            def meet(mover: Any, division: Any, *others: Any) -> None:
                assert free.exists(keys.shut(division.lane))
                if not met:
                    met.append(pool.submit(does))
                wait(met, shut_s)
                divide(mover, division, *others)

            self._patch.setattr(Mover, "divide", meet)
            assert Relaner(free, shop.settings.model_copy()).run(AFTER).divided == BEFORE
            self._patch.undo()
            return met[0].result(20)

    def close(self) -> None:
        for one in self._opened:
            one.connection_pool.disconnect()


@pytest.fixture
def meeting(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Meeting]:
    monkeypatch.setattr(moving_module, "_DRAIN_S", 0.0)
    monkeypatch.setattr(leaving_module, "_READERS_S", 0.0)
    made = Meeting(make_settings, pytest.MonkeyPatch())
    yield made
    made.close()


def nothing(_: Shop) -> str:
    return ""


def under_way(shop: Shop) -> str:
    """Have a broadcast of which 20 are delivered, 5 failed, 10 in doubt, and others in hands."""
    return sent(shop)[0]


def sent(shop: Shop) -> tuple[str, list[Claim]]:
    broadcast = shop.broadcast("subscribe")
    shop.open(broadcast)
    shop.keeper.run_once()
    claims = [claim for claim in shop.take(200) if claim.broadcast == broadcast]
    assert len(claims) == len(USERS)
    for claim in claims[:20]:
        shop.settle(claim, msgid="7")
    for claim in claims[20:25]:
        shop.settle(claim, "settle", "spent", "failed", errcode=47003, streak="-")
    for claim in claims[25:35]:
        shop.settle(claim, "settle", "doubt", "in_doubt", streak="-")
    return broadcast, claims[35:]


def ended(shop: Shop) -> str:
    broadcast, rest = sent(shop)
    for claim in rest:
        shop.settle(claim)
    Doubts(shop.client, shop.settings).decide(broadcast, "delivered")
    for lane in shop.settings.layout.lanes:
        shop.client.zadd(keys.due(lane), {broadcast: 0})
    shop.keeper.run_once()
    return broadcast


def die(shop: Shop) -> None:
    """Let all webhooks be given up."""

    async def take() -> None:
        client = store.connect_async(shop.settings)
        outbox = Outbox(client, shop.settings, {"shop": 1000}, 10_000)
        for lane in shop.settings.layout.lanes:
            for letter in await outbox.take(lane, 1000):
                await outbox.died(letter, "HTTP 500")
        await client.aclose()
        await client.connection_pool.disconnect()

    asyncio.run(take())


def forgets(shop: Shop, broadcast: str) -> Any:
    users = Users(shop.client, shop.settings)
    for user in USERS[::6]:
        users.forget("shop", user)
    return [card(shop, user) for user in USERS[::6]]


def card(shop: Shop, user: str) -> Any:
    """Return what is known of a user, but for what is another each time."""
    found = Users(shop.client, shop.settings).show("shop", user)
    sends = [(one.state, one.outcome, one.errcode, one.msgid) for one in found.sends]
    return found.audiences, found.usable, found.held, found.sending, sends


def shows(shop: Shop, _: str) -> Any:
    return [card(shop, user) for user in USERS]


def collects(shop: Shop, _: str) -> Any:
    uploads = [{"openid": f"oNew{n}", "formId": f"f{n}"} for n in range(40)]
    report = shop.collector.collect("shop", uploads + uploads[:5])
    return report.new, report.known, ledger.totals(shop.client, shop.settings, "shop").as_dict()


def creates(shop: Shop, _: str) -> Any:
    shop.audiences.import_rows("shop", "vip", [user.encode() for user in USERS[:9]])
    made = [shop.broadcast("template", audience=one) for one in ("all", "all - vip")]
    status = [shop.broadcasts.status(one) for one in made]
    return [(one.state, one.audience) for one in status]


def posts(shop: Shop, _: str) -> Any:
    return len({shop.post(user, key=f"k{user}") for user in USERS[:20] * 2}), [
        shop.messages.show(shop.post(user, key=f"k{user}") + f".{user}").state for user in USERS[:3]
    ]


def moves(shop: Shop, broadcast: str) -> Any:
    shop.broadcasts.pause(broadcast)
    shop.broadcasts.resume(broadcast)
    shop.broadcasts.cancel(broadcast)
    status = shop.broadcasts.status(broadcast)
    return status.state, status.total


def lists(shop: Shop, broadcast: str) -> Any:
    recipients = Recipients(shop.client, shop.settings)
    found: Counter[str] = Counter()
    cursor = ""
    while True:
        page = recipients.page(broadcast, cursor=cursor, limit=7)
        found.update(one.openid for one in page.rows)
        if not (cursor := page.cursor):
            return sorted(found)


def decides(shop: Shop, broadcast: str) -> Any:
    moved = Doubts(shop.client, shop.settings).decide(broadcast, "delivered")
    return moved, Counter(one.partition(" ")[0] for one in shop.outcomes(broadcast).values())


def receives(shop: Shop, broadcast: str) -> Any:
    receipts = Receipts(shop.client, shop.settings)
    sent = [one for one, said in shop.outcomes(broadcast).items() if said.startswith("delivered")]
    return [
        receipts.settle("shop", one, TEMPLATE, msgid="7", errcode=1, at_ms=shop.now_ms())
        for one in sorted(sent)
    ]


def retries(shop: Shop, broadcast: str) -> Any:
    return Retries(shop.client, shop.settings).retry(broadcast, ["failed"]).recipients


def audiences(shop: Shop, _: str) -> Any:
    vip = [user.encode() for user in USERS]
    done = [shop.audiences.import_rows("shop", "vip", vip).added]
    done += [shop.audiences.replace_rows("shop", "vip", vip[:30]).removed]
    done += [shop.audiences.remove_rows("shop", "vip", vip[20:40]).removed]
    shop.audiences.import_rows("shop", "late", vip)
    shop.audiences.delete("shop", "late")
    sizes = [shop.audiences.measure("shop", one).members for one in ("vip", "all - vip")]
    return done, sizes, shop.audiences.count("shop", "all"), shop.audiences.names("shop")


def suppresses(shop: Shop, _: str) -> Any:
    suppressions = Suppressions(shop.client, shop.settings)
    rows = [user.encode() for user in USERS]
    added = suppressions.import_rows("shop", "imported", rows).added
    lifted = suppressions.remove_rows("shop", rows[:20]).removed
    for user in USERS[:10]:
        suppressions.opt_out("shop", user)
    assert all(suppressions.opt_in("shop", user) for user in USERS[:5])
    return added, lifted, suppressions.counts("shop")


def forecasts(shop: Shop, _: str) -> Any:
    forecaster = Forecaster(shop.client, shop.settings)
    planner = Planner(shop.client, shop.settings)
    found = forecaster.forecast("shop", "subscribe", TEMPLATE)
    asks = [planner.plan("shop", user, 3).as_dict() for user in USERS[:5]]
    return found.members, [one.users for one in found.horizons], asks


def letters(shop: Shop, _: str) -> Any:
    box = DeadLetters(shop.client, shop.settings)
    page = box.page("shop", limit=1000)
    ids = [one.id for one in page.letters]
    replayed = box.replay("shop", ids[:7]), box.replay("shop")
    assert len(ids) == 30
    return replayed, box.box("shop").dead


def enters(shop: Shop, _: str) -> Any:
    door = Door(shop.client, shop.settings)
    return [bool(door.admit("shop", user)) for user in USERS[:10]]


def have_dead_letters(shop: Shop) -> str:
    for one in {shop.post(user) for user in USERS[:30]}:
        shop.open(one)
    for claim in shop.take(1000):
        shop.settle(claim)
    die(shop)
    return ""


WAYS = [
    (forgets, under_way),
    (shows, under_way),
    (collects, nothing),
    (creates, nothing),
    (posts, nothing),
    (moves, under_way),
    (lists, under_way),
    (decides, under_way),
    (receives, under_way),
    (retries, ended),
    (audiences, nothing),
    (suppresses, nothing),
    (forecasts, under_way),
    (letters, have_dead_letters),
    (enters, nothing),
]


@pytest.mark.parametrize(("does", "before"), WAYS, ids=[does.__name__ for does, _ in WAYS])
def test_it_is_done_whole_and_once(
    client: Any, meeting: Meeting, does: Callable[[Shop, str], Any], before: Callable[[Shop], str]
) -> None:
    shop, broadcast = meeting.shop(client, before)
    at_rest = does(shop, broadcast)
    sums = summed(shop)
    shop, broadcast = meeting.shop(client, before)
    assert meeting.amid(shop, lambda: does(shop, broadcast)) == at_rest
    assert summed(shop) == sums
    shop, broadcast = meeting.shop(client, before)
    meeting.amid(shop, lambda: None)
    assert shop.settings.layout.count == BEFORE, "it slept, and knows of nothing"
    assert does(shop, broadcast) == at_rest
    assert summed(shop) == sums


def summed(shop: Shop) -> dict[str, Any]:
    assert shop.wrong() == []
    return ledger.totals(shop.client, shop.settings, "shop").as_dict()


def test_who_is_not_to_wait_is_told_so_and_nothing_was_done(client: Any, meeting: Meeting) -> None:
    shop, _ = meeting.shop(client, nothing)
    [mine, *_] = [user for user in USERS if shop.lane(user) == 0]

    def does() -> None:
        with deadline.within(5.0, waits=False), pytest.raises(LaneDividedError, match="moment"):
            Users(shop.client, shop.settings).forget("shop", mine)
        [other, *_] = [user for user in USERS if shop.lane(user) == 1]
        assert Users(shop.client, shop.settings).forget("shop", other).uses == 3

    meeting.amid(shop, does)
    assert Users(shop.client, shop.settings).forget("shop", mine).uses == 3


def test_who_has_no_time_left_to_look_for_the_heirs_is_told_the_same(
    client: Any, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, _ = meeting.shop(client, nothing)
    [mine, *_] = [user for user in USERS if shop.lane(user) == 0]

    def silent(*_: Any) -> None:
        raise redis.TimeoutError

    def does() -> None:
        monkeypatch.setattr(following_module, "follow", silent)
        with deadline.within(0.5), pytest.raises(LaneDividedError, match="moment"):
            Users(shop.client, shop.settings).forget("shop", mine)
        monkeypatch.undo()

    meeting.amid(shop, does, shut_s=5)
    assert Users(shop.client, shop.settings).forget("shop", mine).uses == 3


def test_an_audit_that_missed_a_lane_says_so(client: Any, meeting: Meeting) -> None:
    shop, _ = meeting.shop(client, under_way)
    with pytest.raises(LaneDividedError, match="again"):
        meeting.amid(shop, Auditor(shop.client, shop.settings).run)
    assert Auditor(shop.client, shop.settings).run().wrong == []
