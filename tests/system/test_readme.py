"""The READMEs, followed literally in a new folder: each block ends as it says.

The front page is followed by itself; a room's README after the front page's first steps.

The test changes three things that a reader has in another way: the two ports, which are free ones
here, and `shop.py` beside the pytest example, "your code". Blocks that cannot run are marked in the
README with the reason; a test counts them.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from readme import (
    NAME,
    Block,
    Python,
    Shell,
    anchors,
    blocks,
    broken,
    first_steps,
    links,
    named_tests,
    rooms,
    table_of,
    until,
)

from producers.local import ports, procfile

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in rooms(ROOT)}
BLOCKS = {name: blocks(text) for name, text in TEXTS.items()}
TO_FOLLOW = [
    name
    for name, found in BLOCKS.items()
    if any(one.language != "text" and not one.mark.startswith("not run") for one in found)
]
NOT_RUN = {NAME: 2, "tests/README.md": 9}
"""Blocks that may be marked so: the demo and the tests; how to test cannot be run in a test."""

NAMED = re.compile(r"# (\S+)\n")
YOUR_CODE = """
from producers import Producer


def remind_everybody():
    with Producer() as producer:
        producer.broadcast(
            app="shop", channel="subscribe", template_id="T", audience="all",
            data={"thing1": "每日签到"},
        )
"""

pytestmark = pytest.mark.timeout(300)


class Reader:
    """Somebody who pastes block after block, and compares."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder = folder / "mine"
        self.folder.mkdir()
        self._node = node
        self._ports = {"8080": str(ports.free_port()), "8800": str(ports.free_port())}
        env = {name: text for name, text in os.environ.items() if not name.startswith("WXB_")}
        env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env["PATH"]))
        env["WXB_WEB_PORT"] = self._ports["8080"]
        env["COLUMNS"] = "160"
        self._shell = Shell(self.folder, env)
        self._python: Python | None = None
        self._page = ""
        self._terminals: list[subprocess.Popen[bytes]] = []

    def follow(self, block: Block) -> str:
        """Do what a block says; returns what is wrong with it, '' when nothing is."""
        code = re.sub(
            r"127\.0\.0\.1:(8080|8800)",
            lambda found: f"127.0.0.1:{self._ports[found[1]]}",
            block.code,
        )
        if block.mark == "stays":
            return self._open_terminal(code)
        match block.language:
            case "ini":
                name = NAMED.match(code)
                assert name is not None, "the first line of a file is `# its name`"
                (self.folder / name[1]).write_text(code, "utf-8")
                return ""
            case "sh":
                return self._judge(block, *self._shell.run(code))
            case "console":
                return self._compare(block, code)
            case "python" if "def test_" in code:
                return self._test(code)
            case "python":
                self._python = self._python or Python(self.folder, self._shell.env())
                return self._judge(block, *self._python.run(code))
            case "js":
                self._page = code
                return ""
            case "html":
                return self._use_page(code)
            case "text":  # a drawing
                return ""
        return f"nobody knows how to follow a block of {block.language!r}"

    def close(self) -> None:
        if self._python is not None:
            self._python.end()
        for terminal in self._terminals:
            terminal.send_signal(signal.SIGINT)
            terminal.wait(30)

    def _open_terminal(self, code: str) -> str:
        terminal = self._shell.start(code)
        self._terminals.append(terminal)
        until(
            lambda: terminal.poll() is not None or '"event":"web_started"' in self._said(),
            "`up` has started",
        )
        return "" if terminal.poll() is None else f"it ended: {self._said()}"

    def _said(self) -> str:
        return (self.folder.parent / "terminal.log").read_text("utf-8")

    @staticmethod
    def _judge(block: Block, code: int, output: str, said: str) -> str:
        if code:
            return f"exit code {code}: {output}{said}"
        wrong = broken(block.promises, output)
        return f"it does not print {wrong}, but: {output}" if wrong else ""

    def _compare(self, block: Block, text: str) -> str:
        """Run the command of a transcript, and compare what it prints with the rest."""
        command, expected = text.removeprefix("$ ").split("\n", 1)
        code, output, said = self._shell.run(command)
        said = "".join(line for line in said.splitlines(True) if not line.startswith("{"))
        if code:
            return f"exit code {code}: {output}{said}"
        exact = not block.mark.startswith("numbers vary")
        found = table_of(output + said, numbers=exact)
        return "" if found == table_of(expected, numbers=exact) else f"it prints {output}{said}"

    def _test(self, code: str) -> str:
        """Run an example of a test, with the reader's own code beside it."""
        (self.folder / "shop.py").write_text(YOUR_CODE, "utf-8")
        (self.folder / "test_example.py").write_text(code, "utf-8")
        options = "-q -p no:randomly -p no:cacheprovider test_example.py"
        exit_code, output, said = self._shell.run(f"{sys.executable} -m pytest {options}")
        return "" if exit_code == 0 and "1 passed" in output else output + said

    def _use_page(self, html: str) -> str:
        """Let a user of the mini-program tap, on a phone against the service that runs."""
        order = {
            "url": f"http://127.0.0.1:{self._ports['8080']}",
            "js": self._page,
            "html": html,
            "file": str(self.folder.parent / "phone.json"),
            "codes": ["a code of wx.login".replace(" ", "-")],
        }
        done = subprocess.run(
            [self._node, str(HERE / "readme_page.js"), json.dumps(order)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if done.returncode:
            return done.stderr
        seen = json.loads(done.stdout)
        calls = [(path.rsplit("/", 1)[1], status) for _, path, status in seen["seen"]]
        expected = {
            "required": ["./push-code.js", "../../push-code.js"],
            "visited": ["/pages/item/item?id=7"] * 2,
            "popups": [["TEMPLATE_ID"]],
            "waiting": [],
            "warnings": [],
        }
        wrong = {name: seen[name] for name in expected if seen[name] != expected[name]}
        if {("login", 200), ("plan", 200), ("collect", 200)} != set(calls):
            wrong["calls"] = calls
        return f"the phone saw {wrong}" if wrong else ""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        pytest.fail("the mini-program's blocks run in node: install it (apt: nodejs)")
    reader = Reader(tmp_path, node)
    try:
        yield reader
    finally:
        reader.close()


@pytest.mark.parametrize("name", TO_FOLLOW)
def test_whoever_follows_it_literally_gets_what_it_says(reader: Reader, name: str) -> None:
    before = [] if name == NAME else [(NAME, block) for block in first_steps(BLOCKS[NAME])]
    for file, block in [*before, *((name, block) for block in BLOCKS[name])]:
        if not block.mark.startswith("not run"):
            wrong = reader.follow(block)
            assert not wrong, f"{file}, line {block.line}: {block.code}\n{wrong}"


def test_the_lines_for_production_are_those_of_the_procfile() -> None:
    [block] = [
        one
        for found in BLOCKS.values()
        for one in found
        if "run until they are stopped" in one.mark
    ]
    assert sorted(block.code.split("\n")[:-1]) == sorted(procfile.read().values())


@pytest.mark.parametrize("name", TEXTS)
def test_as_good_as_every_block_runs(name: str) -> None:
    not_run = [one.mark for one in BLOCKS[name] if one.mark.startswith("not run")]
    assert len(not_run) <= NOT_RUN.get(name, 1), not_run


def test_blocks_say_what_they_print() -> None:
    assert sum(len(one.promises) for found in BLOCKS.values() for one in found) >= 20


@pytest.mark.parametrize("name", TEXTS)
def test_its_links_lead_somewhere_on_any_host(name: str) -> None:
    found = [link for link in links(TEXTS[name]) if "://" not in link]
    for link in found:
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.is_relative_to(ROOT), link
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link
    assert name == NAME or found, "a room that leads nowhere"


def test_every_room_with_a_readme_is_found_from_the_front_page() -> None:
    seen, ahead = {NAME}, [NAME]
    while ahead:
        name = ahead.pop()
        for link in links(TEXTS[name]):
            path = ((ROOT / name).parent / link.partition("#")[0]).resolve()
            inside = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
            if inside in TEXTS and inside not in seen:
                seen.add(inside)
                ahead.append(inside)
    assert sorted(TEXTS) == sorted(seen)


@pytest.mark.parametrize("name", TEXTS)
def test_the_tests_that_it_names_are_there(name: str) -> None:
    files = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    for file, test in named_tests(TEXTS[name]):
        assert file in files, file
        assert not test or f"def {test}(" in files[file].read_text("utf-8"), (file, test)


def test_each_invariant_and_each_fault_domain_names_its_tests() -> None:
    text = TEXTS["workers/README.md"]
    rows = text[text.index("## What always holds") : text.index("What stays shared")].splitlines()
    table = [row for row in rows if row.startswith("| ") and "shown by" not in row]
    assert len(table) >= 17
    for row in table:
        assert named_tests(row) or links(row), row


@pytest.mark.parametrize(
    ("promise", "output", "kept"),
    [
        ("delivered", "delivered\n", True),
        ("oA,delivered… oB,no_permit…", "oA,delivered,0\noB,no_permit,0\n", True),
        ("oA,delivered… oB,no_permit…", "oB,no_permit,0\noA,delivered,0\n", False),
        ('{"id":"1a2128554c4a519c061f9"}', '{"id":"1a2144ae06aeea500d822"}', True),
        ('{"id":"1a2128554c4a519c061f9"}', '{"id":"ID"}', False),
        ('{"new":2}', '{"new":1}', False),
    ],
)
def test_a_promise_is_kept_or_not(promise: str, output: str, *, kept: bool) -> None:
    assert (broken([promise], output) == []) is kept


def test_promises_are_kept_one_after_the_other() -> None:
    assert broken(["a", "b"], "b a") == ["b"]
