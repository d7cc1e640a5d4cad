"""Running the command line in tests: within the test's process, or as a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from typer.testing import CliRunner

from producers.cli import app
from producers.settings import Settings


class Ran:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """The last line on stdout."""
        return json.loads(self.out.splitlines()[-1])


def variables(settings: Settings) -> dict[str, str]:
    """Settings as the variables that give them."""
    apps = {
        alias: {
            **one.model_dump(mode="json"),
            **{
                name: value.get_secret_value()
                for name, value in one
                if isinstance(value, SecretStr)
            },
        }
        for alias, one in settings.apps.items()
    }
    return {
        "WXB_REDIS_URL": settings.redis_url.get_secret_value(),
        "WXB_WECHAT_URL": str(settings.wechat_url),
        "WXB_APPS": json.dumps(apps),
        "WXB_LANES": str(settings.lanes),
        "WXB_BUCKETS": str(settings.buckets),
        "WXB_WEBHOOK_NETWORKS": json.dumps([str(one) for one in settings.webhook_networks]),
    }


def run(settings: Settings, *args: object, stdin: bytes | str | None = None) -> Ran:
    """Run a command within this process."""
    result = CliRunner().invoke(
        app, [str(arg) for arg in args], input=stdin, env=variables(settings)
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def command(*args: object) -> list[str]:
    """A command for a process of its own."""
    return [sys.executable, "-m", "producers.cli", *map(str, args)]


@contextlib.contextmanager
def started(
    *args: object, env: dict[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command as a process, which is ended at the latest with the test."""
    process = subprocess.Popen(
        command(*args),
        env={**os.environ, **env},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.communicate(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()


def ended(process: subprocess.Popen[str], within_s: float = 30) -> Ran:
    """Wait for the end of a command."""
    out, err = process.communicate(timeout=within_s)
    return Ran(process.returncode, out, err)
