"""The READMEs as a newcomer reads them: code blocks in order, and what each says that it prints.

In a block, ``→ text`` within a comment is a promise: the next output holds it, with ``…`` for
anything. Ids and times are anybody's. A comment before a block, which readers do not see, says what
is special about it: ``not run: WHY``, ``stays`` (a terminal of its own), ``numbers vary: WHY``.

The front page stands alone; a room's README is read after its first steps, until what they start
runs. Links lead to files and headings that there are, and tests that are named exist.
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Final

_FENCE: Final = re.compile(
    r"(?:^<!-- (?P<mark>not run: [^\n]+|stays|numbers vary: [^\n]+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK: Final = re.compile(r"\]\(([^()\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TEST: Final = re.compile(r"`(?:(?P<file>test_\w+)|…)(?:::(?P<test>test_\w+))?`")
_PROMISE: Final = re.compile(r"#.*?→ (.+?)(?:   |$)", re.MULTILINE)
_ID: Final = re.compile(r"\b[0-9a-f]{21}\b")
_NUMBER: Final = re.compile(r"[0-9][0-9,.]*")
_RULE: Final = re.compile(r"[─\s]*")
NAME: Final = "README.md"
_WITHIN_S: Final = 90.0
"""For one block, of a dozen commands at the most; on a busy machine each takes seconds to start."""
_ENDED: Final = "--- the block has ended: "


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        line: of its fence in the README, from 1.
        language: what its fence says.
        code: what it holds.
        mark: what the comment before it says, '' without one.
    """

    line: int
    language: str
    code: str
    mark: str

    @property
    def promises(self) -> list[str]:
        """What its comments say that it prints."""
        return _PROMISE.findall(self.code)


def blocks(text: str) -> list[Block]:
    """Return the blocks of a README."""
    found = [
        Block(
            text.count("\n", 0, match.start("code")),
            match["language"],
            match["code"],
            match["mark"] or "",
        )
        for match in _FENCE.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall("^```", text, re.MULTILINE)), "a fence is not closed"
    return found


def rooms(root: Path) -> list[str]:
    """Return the READMEs below a folder as paths within it, the front page first."""
    found = [path for top in ("producers", "workers", "tests") for path in (root / top).rglob(NAME)]
    return [NAME, *sorted(str(path.relative_to(root)) for path in found)]


def first_steps(front: list[Block]) -> list[Block]:
    """Return the blocks of the front page until what stays runs, and the shell knows where."""
    marks = [block.mark for block in front]
    until_then = front[: marks.index("stays") + 2]
    return [block for block in until_then if not block.mark.startswith("not run")]


def without_code(text: str) -> str:
    """Return a README without its blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Return where a README's links lead."""
    return _LINK.findall(without_code(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a README's headings, as the hosts of repositories make them."""
    plain = (re.sub(r"[^\w\s-]", "", one.lower()) for one in _HEADING.findall(without_code(text)))
    return {one.strip().replace(" ", "-") for one in plain}


def named_tests(text: str) -> list[tuple[str, str]]:
    """Return (file, test) of each test that a README names; test: '' for the whole file.

    ``…::test_x`` lies in the file that was named before it.
    """
    named, file = [], ""
    for match in _TEST.finditer(text):
        file = match["file"] or file
        named.append((file, match["test"] or ""))
    return named


def pattern(promise: str) -> re.Pattern[str]:
    """Return what output keeps a promise."""
    words = _ID.sub("\0", " ".join(promise.split()))
    exact = ".*?".join(re.escape(part.strip()) for part in words.split("…"))
    return re.compile(exact.replace("\0", "[0-9a-f]{21}"))


def broken(promises: list[str], output: str) -> list[str]:
    """Return the promises that an output does not keep, each after the one before."""
    left, wrong = " ".join(output.split()), []
    for promise in promises:
        match = pattern(promise).search(left)
        if match is None:
            wrong.append(promise)
        else:
            left = left[match.end() :]
    return wrong


def table_of(text: str, *, numbers: bool) -> list[str]:
    """Return the lines of a table, without rules and padding; numbers are N unless they count."""
    lines = [" ".join(line.split()) for line in text.splitlines() if not _RULE.fullmatch(line)]
    return lines if numbers else [_NUMBER.sub("N", line) for line in lines]


class Shell:
    """Bash, which stops a block at its first failure, as a reader would."""

    _KEEP = "{ declare -p | grep -v '^declare -[a-zA-Z]*r'; declare -f; } > \"$_STATE\" 2>/dev/null"

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self._env = {**env, "_STATE": str(folder.parent / "shell-state")}

    def command(self, code: str) -> list[str]:
        """Return what runs a block; what the blocks before exported and defined is there."""
        known = '[ ! -e "$_STATE" ] || . "$_STATE" 2>/dev/null || true'
        return ["bash", "-c", f"{known}\nset -eo pipefail\n{code}\n{self._KEEP}"]

    def run(self, code: str) -> tuple[int, str, str]:
        """Run a block; returns its exit code, stdout and stderr."""
        done = subprocess.run(
            self.command(code),
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def start(self, code: str) -> "subprocess.Popen[bytes]":
        """Run a block in a terminal of its own."""
        with (self.folder.parent / "terminal.log").open("wb") as log:
            return subprocess.Popen(
                self.command(f"exec {code.strip()}"),
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def env(self) -> dict[str, str]:
        """Return what it has exported."""
        code, output, said = self.run("env -0")
        assert code == 0, said
        return dict(one.split("=", 1) for one in output.split("\0") if "=" in one)


class Python:
    """A Python that is given block after block, and remembers its names."""

    _LOOP = (
        "import json, sys, traceback\n"
        "names = {'__name__': '__main__'}\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        exec(compile(json.loads(line), 'README.md', 'exec'), names)\n"
        "        code = 0\n"
        "    except BaseException:\n"
        "        code = 1; traceback.print_exc(file=sys.stdout)\n"
        f"    print('{_ENDED}' + str(code), flush=True)\n"
    )

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._LOOP],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def run(self, code: str) -> tuple[int, str, str]:
        """Run a block; as `Shell.run`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        output, deadline = "", time.monotonic() + _WITHIN_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return 1, f"{output}\n(nothing more within {_WITHIN_S:.0f} s)", ""
            if line.startswith(_ENDED):
                return int(line.removeprefix(_ENDED)), output, ""
            output += line

    def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._process.stdout.close()


def until(holds: Callable[[], bool], that: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + _WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {that}"
        time.sleep(0.02)
