"""``.ci/audit``: known vulnerabilities are told where a database is to be had; else it says so."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit"


class Database(BaseHTTPRequestHandler):
    """Answers as OSV does; `answer` makes one result of one query."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        queries = json.loads(body)["queries"] if self.path == "/v1/querybatch" else []
        type(self).asked = queries
        results = [
            {"vulns": [{"id": "GHSA-1"}, {"id": "PYSEC-2"}]}
            if query["package"]["name"] == self.server.bad  # type: ignore[attr-defined]
            else {}
            for query in queries
        ]
        answer = json.dumps({"results": results}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture
def database() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        server.bad = ""  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def audit(port: int) -> tuple[int, str]:
    env = {**os.environ, "OSV_URL": f"http://127.0.0.1:{port}"}
    done = subprocess.run(
        [sys.executable, AUDIT], env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_what_is_installed_is_asked_for_and_what_is_known_is_told(database: HTTPServer) -> None:
    code, said = audit(database.server_port)
    assert (code, "0 of" in said) == (0, True)
    names = {query["package"]["name"] for query in Database.asked}
    assert {"redis", "aiohttp", "cryptography", "dramatiq"} <= names
    assert "wxbroadcast" not in names
    database.bad = "redis"  # type: ignore[attr-defined]
    code, said = audit(database.server_port)
    assert code == 1
    assert "redis " in said
    assert "GHSA-1, PYSEC-2" in said


def test_a_database_out_of_reach_is_said_and_fails_nothing() -> None:
    code, said = audit(1)
    assert code == 0
    assert "NOT CHECKED, http://127.0.0.1:1 does not answer" in said
