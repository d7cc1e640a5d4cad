"""``python -m tests.explore``: walks through worlds; prints a table, and what is broken as a test.

Exit code 0 when everything held, 1 when something did not.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

from .defects import DEFECTS
from .replay import replay
from .report import as_test, defects, table
from .search import Found, Violation, explore
from .walk import walk
from .worlds import WORLDS


def main() -> int:
    """Do what is asked for."""
    asked = _asked()
    if asked.replay:
        return _replayed(asked.replay)
    if asked.defects:
        return _defects(asked.minutes * 60, asked.processes)
    names = asked.worlds or ([DEFECTS[asked.defect].world] if asked.defect else list(WORLDS))
    until = time.monotonic() + asked.minutes * 60
    found: list[Found] = []
    for place, name in enumerate(names):
        # what one world leaves of its share, the others have
        shares = (len(names) - place) * (2 if asked.walk else 1)
        seconds = max(1.0, (until - time.monotonic()) / shares)
        one = explore(
            name,
            seconds=seconds,
            depth=asked.depth,
            faults=asked.faults,
            processes=asked.processes,
            defect=asked.defect,
            state_dir=asked.state,
            resume=asked.resume,
            progress=_told,
        )
        found.append(one)
        if one.violation:
            return _broken(one.violation, asked.defect, one.seconds)
        if asked.walk:
            deep = max(1, one.depth) * 20
            walked = walk(name, depth=deep, seconds=seconds, seed=asked.seed, defect=asked.defect)
            _say(
                f"{name}: {walked.walks:,} walks, {walked.steps:,} steps, the longest"
                f" {walked.deepest}, seed {asked.seed}",
            )
            if walked.violation:
                return _broken(walked.violation, asked.defect, walked.seconds)
    _say(table(found), sys.stdout)
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.explore", description=__doc__)
    parser.add_argument("worlds", nargs="*", metavar="WORLD", help="; ".join(WORLDS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for all worlds together")
    parser.add_argument("--depth", type=int, default=10_000, help="steps at most")
    parser.add_argument("--faults", type=int, metavar="N", help="together in one run, at most")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--state", type=Path, help="directory in which the search is kept")
    parser.add_argument("--resume", action="store_true", help="go on with what is kept there")
    parser.add_argument("--walk", action="store_true", help="then walk at random, 20 times as deep")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--defect", default="", choices=["", *DEFECTS], help="put one back")
    parser.add_argument("--defects", action="store_true", help="each in turn; prints a table")
    parser.add_argument("--replay", type=Path, help="run a path that was printed")
    asked = parser.parse_args()
    unknown = [name for name in asked.worlds if name not in WORLDS]
    if unknown:
        parser.error(f"no world {unknown[0]}: {', '.join(WORLDS)}")
    return asked


def _defects(seconds: float, processes: int) -> int:
    """Put each known defect back in turn; all must be found."""
    found: list[tuple[str, Found]] = []
    for name, defect in DEFECTS.items():
        began = time.monotonic()
        one = explore(defect.world, seconds=seconds, processes=processes, defect=name)
        one.seconds = time.monotonic() - began
        found.append((name, one))
        _say(f"{name}: {one.violation.name if one.violation else 'NOT FOUND'}")
    _say(defects(found), sys.stdout)
    return 0 if all(one.violation for _, one in found) else 1


def _say(text: str, to: TextIO = sys.stderr) -> None:
    to.write(f"{text}\n")
    to.flush()


def _told(found: Found) -> None:
    _say(
        f"{found.world}: {found.depth} steps, {found.states:,} states,"
        f" {found.transitions:,} transitions, {found.seconds:.0f} s",
    )


def _broken(violation: Violation, defect: str, seconds: float) -> int:
    _say(
        f"{violation.world}: broken after {len(violation.path)} steps, {seconds:.1f} s:"
        f" {violation.name}: {violation.what}",
    )
    text = as_test(violation, defect)
    with tempfile.NamedTemporaryFile("w", prefix="explore-", suffix=".py", delete=False) as file:
        file.write(text)
    _say(f"python -m tests.explore --replay {file.name}")
    _say(text, sys.stdout)
    return 1


def _replayed(path: Path) -> int:
    """Run a path as it was printed."""
    space: dict[str, object] = {}
    text = path.read_text("utf-8").replace("from explore.replay import replay\n", "")
    exec(compile(text, str(path), "exec"), {"replay": replay}, space)  # noqa: S102  (it is a test)
    try:
        space["test_path"]()  # type: ignore[operator]
    except AssertionError as error:
        _say(f"broken: {error}")
        return 1
    _say("it holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
