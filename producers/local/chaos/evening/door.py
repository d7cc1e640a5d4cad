"""The service of an evening, and somebody who calls it with a key."""

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from producers.access.api_keys import ANY_APP, ApiKeys, Scope
from producers.local.chaos.door import await_port
from producers.local.parts import Watcher
from producers.local.ports import free_port
from producers.local.supervisor import Supervisor
from producers.settings import Settings
from producers.store import Client

_HOST: Final = "127.0.0.1"
_TIMEOUT_S: Final = 10.0


class ServiceDoor:
    """Calls the service; used by one thread.

    Args:
        port: where it listens.
        token: an API key.
    """

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token

    def call(self, method: str, path: str, body: object = None, key: str = "") -> tuple[int, Any]:
        """Return the status and the JSON of an answer; 0 and None where there was none."""
        headers = {"Authorization": f"Bearer {self._token}"}
        text = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            text = json.dumps(body).encode()
        if key:
            headers["Idempotency-Key"] = key
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, text, headers)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError):
                return 0, None


@contextlib.contextmanager
def opened(
    env: Mapping[str, str], folder: Path, client: Client, settings: Settings, watcher: Watcher
) -> Iterator[ServiceDoor]:
    """Run the service, and give a caller.

    Raises:
        DemoError: it did not start.
    """
    made = ApiKeys(client, settings).create("evening", [ANY_APP], [Scope.SEND, Scope.READ])
    with (folder / "web.log").open("ab") as output:
        service = Supervisor(env, folder, output)
        try:
            port = free_port()
            service.start("web.1", f"wxbroadcast web --port {port}")
            await_port(port, folder, watcher)
            yield ServiceDoor(port, made.token)
        finally:
            service.stop()
