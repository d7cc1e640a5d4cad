"""Known defects, put back one at a time: what finds them is known to look.

A defect is a piece of a script's text and what stands in its place, or something of a Python module
and what stands in its place. `put_back` is the context in which the product has it again.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final
from unittest import mock

from producers.broadcasts.lifecycle import Lifecycle
from producers.store import keys, scripts
from workers.duties.epochs import Epochs
from workers.lanes import standing
from workers.sending import verdict

Patch = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Defect:
    """One defect.

    Attributes:
        about: what went wrong, in one sentence.
        world: in which it is found.
        lua: what the text of scripts says → what it says with the defect. Wherever it stands,
            pieces that scripts include among it.
        python: a context in which something of Python has the defect.
    """

    about: str
    world: str
    lua: dict[str, str] = field(default_factory=dict)
    python: Patch = contextlib.nullcontext


class StaleDefectError(AssertionError):
    """No script has the text any more in whose place the defect would stand."""


@contextlib.contextmanager
def put_back(name: str) -> Iterator[None]:
    """Give the product a defect again; '' none.

    Raises:
        StaleDefectError: at the end, when a text that it replaces was in no script.
    """
    if not name:
        yield
        return
    defect = DEFECTS[name]
    whole, met = scripts.source, set[str]()

    def source(package: str, script: str) -> str:
        text = whole(package, script)
        for sound, broken in defect.lua.items():
            if sound in text:
                met.add(sound)
                text = text.replace(sound, broken)
        return text

    with mock.patch.object(scripts, "source", source), defect.python():
        yield
        if met != defect.lua.keys():
            raise StaleDefectError(f"{name}: {defect.lua.keys() - met}")


def replaced(target: object, name: str, by: object) -> Patch:
    """Return a patch that puts something in place of an attribute."""
    return lambda: mock.patch.object(target, name, by)


def both(*patches: Patch) -> Patch:
    """Return the patches as one."""

    @contextlib.contextmanager
    def entered() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            yield

    return entered


def _nobody_beat(self: Epochs, info: dict[str, object]) -> int:
    """How the gap was judged: where nobody beats any more, it is as long as one likes."""
    return 0 if self._client.zcard(keys.WORKERS) and self._acknowledged_ms else 10**9


def _marks_alone(self: Epochs, broadcast: str, lanes: Iterable[int]) -> None:
    """How an epoch marked what runs: without a look at whether each lane has a copy."""
    for lane in lanes:
        self._copies.mark(broadcast, lane, "unsure", "1")


_UNNOTED: Final = {"if errcode == '41029' or streak ==": "if streak =="}
"""So it was when these were: whose permit proves used is noted only by who is in doubt of it."""

DEFECTS: Final = {
    "swap-sure": Defect(
        "a swap forgot that Redis may have forgotten: the next permit was thought unused",
        "restart-swap",
        lua={"member, expires, token, one.unsure and 1 or 0)": "member, expires, token, 0)"}
        | _UNNOTED,
    ),
    "used-is-refused": Defect(
        "after Redis forgot, 41029 was no word on this broadcast: the next permit went out",
        "restart-swap",
        lua=_UNNOTED,
        python=replaced(verdict, "_SAYS_USED", {**verdict._SAYS_USED, "f": {}}),
    ),
    "used-by-another": Defect(
        "after Redis forgot, one met the used form_id: the other's next one reached the user again",
        "restart-two",
        lua={
            "elseif keys.unsure and channel == 'template' and is_doubted(": "elseif is_listed({},"
        },
    ),
    "reached-is-refused": Defect(
        "after Redis forgot, 43101 was taken at its word: who was reached was recorded as refused",
        "restart-s1",
        python=replaced(verdict, "_SAYS_USED", {**verdict._SAYS_USED, "s": {}}),
    ),
    "nobody-is-unsure": Defect(
        "an epoch began without marking what runs: what Redis forgot was sent again",
        "restart-swap",
        python=replaced(Epochs, "_be_unsure", lambda *_: None),
    ),
    "planned-stop": Defect(
        "how long Redis was away was judged by who beats: a planned stop paused everything",
        "restart",
        python=replaced(Epochs, "_forgotten_ms", _nobody_beat),
    ),
    "canary-per-lane": Defect(
        "each lane had K places of its own before the first delivery",
        "lanes",
        lua={"local places = num(has[6])": "local places = math.max(1, num(has[6]))"},
    ),
    "refusal-voids-all": Defect(
        "a refusal voided what its user had beyond that permit, before anybody was delivered",
        "accepts",
        lua={"      if one.open then\n        void_all(": "      if true then\n        void_all("},
    ),
    "receipt-by-time": Defect(
        "a receipt settled the doubt next to it in time, although its msgid named another message",
        "two-for-one",
        lua={"if msgid ~= '' then\n  for i = 8": "if false then\n  for i = 8"},
    ),
    "receipt-of-a-later-one": Defect(
        "a receipt that came before a send was taken by that send's doubt",
        "message",
        lua={"of == template and meant == id and at": "of == template and at"},
    ),
    "late-receipt": Defect(
        "a receipt that came late was taken by what was sent when it came",
        "message",
        lua={"at > tonumber(until_ms) + DAY)": "at > tonumber(until_ms) + CLOCKS)"},
    ),
    "nameless-forgotten": Defect(
        "a doubt took the receipt of a send whose answer had given no msgid",
        "unnamed",
        lua={"if not member and is_nameless(id) then": "if false then"},
    ),
    "unposted-is-posted": Defect(
        "no mark was written before a POST: what was sent was recovered as never posted",
        "prepays",
        lua={"if #marked > 0 then redis.call('HSET', KEYS[key], unpack(marked)) end": ""},
    ),
    "settled-by-anyone": Defect(
        "a settle did not look at the fence: who was thought dead settled what another one sent",
        "ci",
        lua={"or held.worker ~= worker or held.fence ~= token then": "then"},
    ),
    "fence-ignored": Defect(
        "a settle looked at the worker, not at the fence: an old answer settled a new claim",
        "buried",
        lua={
            "or held.worker ~= worker or held.fence ~= token then": "or held.worker ~= worker then"
        },
    ),
    "take-anew": Defect(
        "a take whose reply was lost, asked again, took more instead of giving its first answer",
        "swapped",
        lua={
            "if again then return again end\nlocal now = clock(ARGV[2])\nlocal first, ring": (
                "local now = clock(ARGV[2])\nlocal first, ring"
            )
        },
    ),
    "settle-anew": Defect(
        "a settle whose reply was lost, asked again, answered anew: what it had swapped was lost",
        "swapped",
        lua={
            "if again then return again end\nlocal now = clock(ARGV[2])\nlocal sending, fence": (
                "local now = clock(ARGV[2])\nlocal sending, fence"
            )
        },
    ),
    "recovered-as-new": Defect(
        "a dead worker's message went back with its permit, as if it had never been posted",
        "forms",
        lua={"if held.resumed == UNPOSTED and held.since > unsure_at then": "if true then"},
    ),
    "perhaps-sent-goes-back": Defect(
        "a resumed message that could not be posted gave its permit back, which may have been used",
        "forms",
        lua={
            "if held.resumed == '1' then  -- an earlier attempt": (
                "if false then  -- an earlier attempt"
            )
        },
    ),
    "no-tombstone": Defect(
        "a claimed permit left no tombstone: collected again, it could be claimed again",
        "mixed",
        lua={
            "redis.call('ZADD', permits, 'XX', -expires, member)": (
                "redis.call('ZREM', permits, member)"
            )
        },
    ),
    "handed-back-uncounted": Defect(
        "a permit that was handed back was missing in the stock",
        "forms",
        lua={
            "expires, member)\n    add(books, 'stock', kind_of(member)": (
                "expires, member)\n    add(books, 'ledger', kind_of(member)"
            )
        },
    ),
    "cursor-stays": Defect(
        "a split did not move its cursor in the same step: a bucket came twice",
        "unheard",
        lua={
            "redis.call('HSET', lane, 'cursor', cursor)": "",
            "  redis.call('HSET', lane, 'split', 'done')": "",
        },
    ),
    "pause-in-the-ring": Defect(
        "a pause left the broadcast in the ring, and a take did not look at its state",
        "mixed",
        lua={
            "redis.call('LREM', priority == '1' and first or ring, 0, id)": "",
            "if has[1] ~= 'running' or has[2] ~= '' or has[12] ~= '' then return false end": "",
        },
    ),
    "finished-too-soon": Defect(
        "a broadcast was finished before everybody had an outcome",
        "forms",
        lua={"local through = num(has[9]) >= num(has[10])": "local through = true"},
        python=both(
            replaced(standing.Standing, "is_complete", True),
            replaced(Lifecycle, "finish", lambda self, one: bool(self.move(one, "finish"))),
        ),
    ),
    "still-in-flight": Defect(
        "a settle left the message in flight",
        "ci",
        lua={"  redis.call('HDEL', one.flight, item)\n": ""},
    ),
    "cancelled-and-sent": Defect(
        "a cancel counted what was perhaps sent among what waited",
        "mixed",
        lua={
            "if redis.call('EXISTS', flight) == 1 then\n    bump(lane, 'sweeping', waited)": (
                "if false then\n    bump(lane, 'sweeping', waited)"
            )
        },
    ),
    "delayed-for-ever": Defect(
        "a message that waits was noted for no keeper: nobody promoted it",
        "forms",
        lua={"if one.due then need(prefix, one.id, one.due) end": ""},
    ),
    "place-kept": Defect(
        "a doubt of a dead worker kept its place of the canary: with K of them nothing moved",
        "prepays-k1",
        lua={"if frees_place and unjudged > 0 then": "if false then"},
    ),
    "two-at-a-time": Defect(
        "a user was sent two messages at once",
        "carrier",
        lua={"if until_ms and tonumber(until_ms) > now and": "if false and"},
    ),
    "first-copy-skipped": Defect(
        "a mark wrote a bare hash where a lane had no copy, and the first copy was skipped over it",
        "unheard",
        lua={
            "if redis.call('HEXISTS', KEYS[1], 'generation') == 0 then return 0 end": "",
            "if not mine_is then\n": "if redis.call('EXISTS', lane) == 0 then\n",
        },
        python=replaced(Epochs, "_be_unsure", _marks_alone),
    ),
}

ELSEWHERE: Final = {
    "an upload with a template id like a key of ours was stored half": (
        "producers/store/test_no_script_fails_half_way.py"
    ),
    "a permit's key ended before its last tombstone": "producers/permits/test_collect_lua.py",
    "single messages of an unknown template went on and on": "system/test_live.py",
    "a wake-up that was lost stopped a worker for good": "system/test_edges.py",
    "a worker without a way out slowed the whole app": "system/test_fault_domains.py",
    "an app that hung took the others' places": "system/test_fault_domains.py",
    "a failover that left connections open was not followed": "system/test_fault_domains.py",
    "a keeper lost its lease between two commands": "workers/lanes/test_keeper.py",
    "a lane's word on what was past paused what was resumed": "workers/lanes/test_keeper.py",
    "an operator's decision brought an ended broadcast's counts back": (
        "producers/recipients/test_receipt_lua.py"
    ),
    "a receipt that came early was taken by another send's doubt": (
        "producers/recipients/test_receipt_lua.py"
    ),
    "a limit error ended a live rate after two days": "workers/limits/test_penalize_lua.py",
}
"""What none of the worlds can show, for it lies in connections, in processes, in commands that are
one script now, or days away; and the tests (of tests/) that show it."""
