"""``python -m tests.mutants``: breaks the code one small change at a time, and tells what lives.

Exit code 0 when no mutant of the sample lives; 1 when one does.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .choice import FOLDERS, Choice
from .equivalents import Equivalents
from .mutant import ROOT, Mutant, files, mutants_of
from .results import ALIVE, Results, told
from .trial import Trials


def main() -> int:
    """Do what is asked for."""
    asked = _parser().parse_args()
    asked.state.mkdir(parents=True, exist_ok=True)
    chosen = [path for path in files() if not asked.only or _is_named(path, asked.only)]
    pool = [mutant for path in chosen for mutant in mutants_of(path)]
    if asked.list:
        for mutant in pool:
            sys.stdout.write(f"{mutant.path}:{mutant.line}  {mutant.change}\n")
        return 0
    choice = Choice(asked.state, tuple(asked.tests or FOLDERS))
    choice.prepare()
    if asked.map:
        return 0
    random.Random(asked.seed).shuffle(pool)
    rows = _try(pool, choice, asked)
    sums = told(rows)
    if asked.json:
        document = {"seed": asked.seed, "mutants": len(pool), **sums, "rows": rows}
        asked.json.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
    living = [row for row in rows if row["status"] in ALIVE]
    for row in sorted(living, key=lambda row: (row["path"], row["line"])):
        sys.stdout.write(f"{row['status']} {row['path']}:{row['line']}  {row['change']}\n")
        sys.stdout.write(f"    {row['source']}\n")
    sys.stdout.write(f"seed {asked.seed}, {len(rows)} of {len(pool)} mutants: {sums}\n")
    return 1 if living else 0


def _parser() -> argparse.ArgumentParser:
    place = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=100, metavar="N", help="so many; 100")
    parser.add_argument("--seed", type=int, default=1, help="which ones; 1")
    parser.add_argument(
        "--only", action="append", metavar="FILE", help="of this file, such as settle.lua, or room"
    )
    parser.add_argument("--list", action="store_true", help="print all mutants, and try none")
    parser.add_argument("--map", action="store_true", help="only note what tests touch")
    parser.add_argument("--again", action="store_true", help="try those that lived once more")
    parser.add_argument("--most", type=float, default=45.0, metavar="S", help="tests of a mutant")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so many")
    parser.add_argument("--tests", action="append", metavar="FOLDER", help=" ".join(FOLDERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all verdicts there")
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(tempfile.gettempdir()) / f"wxb-mutants-{place}",
        help="where the map and the verdicts lie; a run goes on where one ended",
    )
    return parser


def _is_named(path: Path, names: list[str]) -> bool:
    place = str(path.relative_to(ROOT))
    return any(place.endswith(f"/{name}") or place.startswith(name) for name in names)


def _try(pool: list[Mutant], choice: Choice, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the verdicts on the first mutants of a shuffled pool that can be compiled."""
    results = Results(asked.state / "results.jsonl")
    known = Equivalents()
    rows: list[dict[str, Any]] = []
    began, controlled = time.monotonic(), False
    with Trials(asked.state, choice, known, asked.most) as trials:
        for mutant in pool:
            if len(rows) >= asked.sample:
                break
            row = results.of(mutant)
            open_again = row is not None and row["status"] in ALIVE
            if row is None or (open_again and (asked.again or known.reason(mutant))):
                if time.monotonic() - began > 60 * asked.minutes:
                    break
                if not controlled:
                    trials.control(mutant)
                    controlled = True
                started = time.monotonic()
                verdict = trials.judge(mutant)
                row = results.add(mutant, verdict, time.monotonic() - started)
                sys.stderr.write(
                    f"{len(rows) + 1}/{asked.sample} {row['status']} {row['path']}:{row['line']} "
                    f"{row['change']} ({row['seconds']} s) {row['by']}\n"
                )
            if row["status"] != "broken":
                rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
