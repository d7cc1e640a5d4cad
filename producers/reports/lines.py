"""Lines: log files read once into two small tables, whatever their size.

DuckDB reads the lines in parallel and in bounded memory. Sends become counts by second, so that ten
million lines are some ten thousand rows; what happens seldom is kept whole. Memory is bounded: what
does not fit goes to a folder of its own, which is removed at the end.

A line may have something before its object (``worker-1  | {…}``, ``2026-… stdout F {…}``), as
process managers write it. What is no object is counted, and nothing else.
"""

import contextlib
import glob
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from producers.errors import InvalidInputError

if TYPE_CHECKING:
    import duckdb

STDIN: Final = "-"

MEMORY: Final = "1GB"
"""What DuckDB may hold; beyond it, it writes to disk."""

LATENCY_STEP: Final = 1.02
"""Latencies are counted in steps of 2 %: a percentile is right within 1 %."""

SENDS: Final = "message_settled"
REQUESTS: Final = "request_answered"

KEPT: Final = (
    "app_failed",
    "app_rate_changed",
    "broadcast_counted",
    "broadcast_created",
    "broadcast_moved",
    "broadcast_retried",
    "gate_closed",
    "gate_opened",
    "limit_hit",
    "limit_lifted",
    "messages_recovered",
    "permits_expired",
    "server_changed",
    "token_refresh_failed",
    "token_refreshed",
    "unit_ended",
    "worker_broken",
    "worker_buried",
    "worker_outlived",
    "worker_started",
    "worker_stopped",
    "worker_stopping",
)
"""Events whose lines are kept whole; of all others the number."""

_FIELDS: Final = {
    "event": "VARCHAR",
    "time": "TIMESTAMP",
    "level": "VARCHAR",
    "app": "VARCHAR",
    "broadcast": "VARCHAR",
    "action": "VARCHAR",
    "outcome": "VARCHAR",
    "errcode": "INTEGER",
    "permit_kind": "VARCHAR",
    "attempt": "INTEGER",
    "latency_ms": "DOUBLE",
    "sample": "DOUBLE",
    "dropped_lines": "BIGINT",
    "route": "VARCHAR",
    "status": "INTEGER",
}

_LONGEST: Final = 4 * 1024 * 1024
"""Bytes of a line; ours have 64 KiB at the most."""

_READ: Final = """
WITH raw AS (
  SELECT substr(line, strpos(line, '{{')) AS line
  FROM read_csv($files, delim = chr(1), quote = '', escape = '', header = false,
    auto_detect = false, columns = {{'line': 'VARCHAR'}}, compression = $compression,
    max_line_size = {longest}, buffer_size = {buffer}, ignore_errors = true, store_rejects = true)
  WHERE line IS NOT NULL
),
parsed AS (
  SELECT line, CASE WHEN line LIKE '{{%' AND json_valid(line)
    THEN json_transform(line, '{fields}') END AS f
  FROM raw
)
SELECT
  f.event AS event, f.level AS level, date_trunc('second', f.time) AS second, f.app AS app,
  f.broadcast AS broadcast, f.action AS action, f.outcome AS outcome, f.errcode AS errcode,
  f.permit_kind AS kind, f.attempt > 1 AS again, f.route AS route, f.status AS status,
  CASE WHEN f.event IN ('{sends}', '{requests}') AND f.latency_ms BETWEEN 1e-6 AND 1e12
    THEN CAST(round(ln(f.latency_ms) / ln({step})) AS SMALLINT) END AS step,
  CASE WHEN f.event IN ({kept}) THEN line END AS line,
  CAST(count(*) AS BIGINT) AS lines,
  sum(CASE WHEN f.event = '{sends}' AND f.sample BETWEEN 1e-9 AND 1
    THEN 1 / f.sample ELSE 1 END) AS n,
  CAST(coalesce(sum(CASE WHEN f.dropped_lines BETWEEN 0 AND 1e12
    THEN f.dropped_lines END), 0) AS BIGINT) AS dropped,
  min(f.time) AS first_at, max(f.time) AS last_at
FROM parsed
WHERE ($since IS NULL OR f.time IS NULL OR f.time >= CAST($since AS TIMESTAMP))
  AND ($until IS NULL OR f.time IS NULL OR f.time < CAST($until AS TIMESTAMP))
  AND ($app IS NULL OR f.app IS NULL OR f.app = $app)
GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lines: of one app, from a time, before a time (ISO 8601, UTC); None: all."""

    app: str | None = None
    since: str | None = None
    until: str | None = None


def files_of(patterns: Sequence[str]) -> list[str]:
    """Return the files that some paths and globs name; ``-`` is the standard input.

    Raises:
        InvalidInputError: one of them names no file, or ``-`` stands beside others.
    """
    files: list[str] = []
    faults: list[str] = []
    for pattern in patterns:
        if pattern == STDIN:
            files.append("/dev/stdin")
        elif Path(pattern).is_file():
            files.append(pattern)
        else:
            matching = glob.glob(pattern, recursive=True)  # noqa: PTH207 - any pattern, absolute too
            found = sorted(one for one in matching if Path(one).is_file())
            if not found:
                faults.append(f"{pattern}: no such file, and nothing matches it as a pattern")
            files += found
    if "/dev/stdin" in files and len(files) > 1:
        faults.append("-: the standard input stands alone, not beside files")
    if not files and not faults:
        faults.append("logs: name files, patterns, or - for the standard input")
    if faults:
        raise InvalidInputError(faults)
    return list(dict.fromkeys(files))


@contextlib.contextmanager
def counted(files: Sequence[str], choice: Choice) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Read log files; gives a database with the table ``counted``.

    Args:
        files: paths as `files_of` gives them; ``.gz`` and ``.zst`` are unpacked on the way.
        choice: which of their lines.

    Raises:
        InvalidInputError: a file cannot be read, or the extra ``report`` is not installed.
    """
    try:
        import duckdb  # noqa: PLC0415 - an extra: only a report needs it
    except ImportError:
        hint = "a report needs DuckDB: pip install 'wxbroadcast[report]'"
        raise InvalidInputError([hint]) from None
    fields = ", ".join(f'"{name}": "{kind}"' for name, kind in _FIELDS.items())
    query = _READ.format(
        longest=_LONGEST,
        buffer=4 * _LONGEST,
        fields="{" + fields + "}",
        sends=SENDS,
        requests=REQUESTS,
        step=LATENCY_STEP,
        kept=", ".join(f"'{event}'" for event in KEPT),
    )
    with tempfile.TemporaryDirectory(prefix="wxbroadcast-report-") as spill:
        database = duckdb.connect()
        try:
            database.execute(f"SET memory_limit = '{MEMORY}'")
            database.execute("SET temp_directory = $folder", {"folder": spill})
            database.execute("SET preserve_insertion_order = false")
            database.execute("SET python_enable_replacements = false")
            given: dict[str, Any] = {
                "app": choice.app,
                "since": choice.since,
                "until": choice.until,
            }
            _fill(database, query, files, given)
            yield database
        except duckdb.Error as error:
            raise InvalidInputError([f"logs: {_first_line(error)}"]) from error
        finally:
            database.close()


def _fill(
    database: "duckdb.DuckDBPyConnection", query: str, files: Sequence[str], given: dict[str, Any]
) -> None:
    """Read the files, those of one compression together."""
    by_compression: dict[str, list[str]] = {}
    for file in files:
        suffix = Path(file).suffix
        kind = {".gz": "gzip", ".zst": "zstd"}.get(suffix, "none")
        by_compression.setdefault(kind, []).append(file)
    into = "CREATE TABLE counted AS"
    for compression, some in by_compression.items():
        database.execute(into + query, {**given, "files": some, "compression": compression})
        into = "INSERT INTO counted"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
