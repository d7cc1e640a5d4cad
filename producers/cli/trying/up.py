"""``wxbroadcast up``: the Procfile on one machine."""

import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from producers.cli.session import guarded, say
from producers.local.url import DATA_DIR

if TYPE_CHECKING:
    from producers.local.embedded import Keeper
    from producers.local.supervisor import Supervisor
    from producers.logs.events import UnitEnded

_DATA_DIR: Final = Path(DATA_DIR)
_LOOK_S: Final = 0.2


def up(
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="Units of a line, e.g. worker=2; 0 leaves it out."),
    ] = None,
    procfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another Procfile than wxbroadcast's own.")
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the embedded Valkey keeps its data.")
    ] = _DATA_DIR,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Run a local WeChat too, which takes all permits.")
    ] = False,
) -> None:
    """Run the Procfile here, until Ctrl-C or SIGTERM.

    Units that end are started again; their log lines go to stdout as they are. A unit whose
    settings or command are wrong stops everything. Variables come from the environment and .env.
    Without WXB_REDIS_URL an embedded Valkey runs too, with its data in .wxbroadcast/, readable by
    you alone; other commands find its address in .wxbroadcast/url, the same after every start. It
    is started again too; when it cannot be, everything stops.

    With --sandbox nothing reaches WeChat: a local one listens at WXB_WECHAT_URL, or at a free port
    when that is not set. To it each permit and login code that it has not seen is good, so whatever
    was collected here is delivered; what it received ends with this command.
    """
    with guarded(as_json=False):
        from producers import logs
        from producers.cli.interrupts import Interrupted, Interrupts

        counts = _counts(scale or [])
        logs.configure("up", descriptor=1)
        with Interrupts() as interrupts:
            try:
                with _running(counts, procfile, data_dir, sandbox=sandbox) as (supervisor, valkey):
                    while supervisor.hopeless is None:
                        if valkey is not None and valkey.hopeless is not None:
                            say(f"{valkey.hopeless}; stopping everything")
                            raise valkey.hopeless
                        interrupts.wait(_LOOK_S)
                _give_up(supervisor.hopeless)
            except Interrupted as interrupted:
                if interrupted.exit_code == 130:
                    raise typer.Exit(130) from None


def _give_up(end: "UnitEnded") -> NoReturn:
    from producers.errors import SettingsError

    why = {126: "its command cannot be executed", 127: "its command is not there"}.get(
        end.exit_code, "what it was given is wrong, as it said above"
    )
    raise SettingsError(f"{end.unit} ended ({end.exit_code}): {why}; everything is stopped")


@contextmanager
def _running(
    counts: dict[str, int], procfile: Path | None, data_dir: Path, *, sandbox: bool
) -> "Iterator[tuple[Supervisor, Keeper | None]]":
    """Run the units, and what they need; None is for a Redis that is not ours.

    Raises:
        SettingsError, StoreUnavailableError, LayoutMismatchError: no unit could run with this.
    """
    import sys

    from dotenv import dotenv_values

    from producers import logs
    from producers.errors import InvalidInputError
    from producers.local import embedded, url
    from producers.local import procfile as procfiles
    from producers.local.supervisor import Supervisor

    commands = procfiles.read(procfile)
    unknown = [name for name in counts if name not in commands]
    if unknown:
        lines = ", ".join(commands)
        raise InvalidInputError(
            [f"scale: no line {name!r} (there are {lines})" for name in unknown]
        )
    from_file = {name: text for name, text in dotenv_values(".env").items() if text is not None}
    env = {**from_file, **os.environ}
    bin_dir = str(Path(sys.executable).parent)
    env["PATH"] = os.pathsep.join((bin_dir, env.get("PATH", os.defpath)))
    _look_for_shadows(env)
    with ExitStack() as stack:
        valkey = None
        if url.is_of(env.get("WXB_REDIS_URL", ""), data_dir):
            valkey = stack.enter_context(embedded.kept(data_dir, logs.emit))
            env["WXB_REDIS_URL"] = valkey.url
            say(f"embedded Valkey, data in {data_dir}/; for other commands:")
            file = shlex.quote(str(url.url_file(data_dir.resolve())))
            say(f'  export WXB_REDIS_URL="$(cat {file})"')
        if sandbox:
            env["WXB_WECHAT_URL"] = stack.enter_context(_local_wechat(env))
        if procfile is None:
            _check(env["WXB_REDIS_URL"])
        supervisor = Supervisor(env, Path.cwd())
        stack.callback(supervisor.stop)
        for name, command in commands.items():
            for number in range(counts.get(name, 1)):
                supervisor.start(f"{name}.{number + 1}", command)
        yield supervisor, valkey


def _look_for_shadows(env: dict[str, str]) -> None:
    """Refuse to start what would not be ours, and warn of what is only so by hand."""
    from producers.care import shadows
    from producers.errors import SettingsError

    hidden = shadows.ahead(env)
    if hidden:
        names = ", ".join(map(str, hidden))
        raise SettingsError(
            f"{names}: Python imports it in place of wxbroadcast's own package of that name; "
            "rename it, or take its directory out of PYTHONPATH and of this environment"
        )
    for path in shadows.here(Path.cwd()):
        say(
            f"{path} is yours: the units run wxbroadcast's own package of that name; by hand, "
            "start workers with `dramatiq workers --path`, or from another directory"
        )


def _check(redis_url: str) -> None:
    """Load the settings and look at the deployment as each unit will.

    Raises:
        SettingsError, StoreUnavailableError, LayoutMismatchError: as it would.
    """
    from producers import settings, store

    os.environ["WXB_REDIS_URL"] = redis_url  # this process is there for the units alone
    loaded = settings.load()
    client = store.connect(loaded, 1, role="cli")
    try:
        store.check_layout(client, loaded)
    finally:
        client.connection_pool.disconnect()


@contextmanager
def _local_wechat(env: dict[str, str]) -> Iterator[str]:
    """Run a local WeChat and give its URL; no app may have another one."""
    from urllib.parse import urlsplit

    from producers.errors import InvalidInputError
    from producers.sandbox import SandboxConfig
    from producers.sandbox.thread import SandboxThread

    # a file of apps is looked at with the others, as far as it can be read: the units say what not
    said = {name: text for name, text in env.items() if name.startswith("WXB_APPS")}
    if file := said.get("WXB_APPS_FILE"):
        with suppress(OSError):
            said["file"] = Path(file).read_text(encoding="utf-8", errors="replace")
    if any("wechat_url" in f"{name} {text}".lower() for name, text in said.items()):
        raise InvalidInputError(["--sandbox: an app has a wechat_url of its own; leave it out"])
    url = env.get("WXB_WECHAT_URL")
    where = urlsplit(url or "http://127.0.0.1:0")
    if where.scheme != "http" or where.hostname != "127.0.0.1" or where.port is None:
        raise InvalidInputError(
            [f"--sandbox: WXB_WECHAT_URL is {url}; leave it out, or set http://127.0.0.1:8800"]
        )
    config = SandboxConfig.model_validate({"permits": "any", "codes": "any"})
    try:
        wechat = SandboxThread(config, where.port)
    except OSError as error:
        raise InvalidInputError([f"--sandbox: cannot listen at {url}: {error.strerror}"]) from error
    with wechat:
        say(f"local WeChat: {wechat.url} (nothing reaches the real one)")
        yield wechat.url


def _counts(scale: list[str]) -> dict[str, int]:
    """Read ``worker=2,web=1`` and the like."""
    from producers.errors import InvalidInputError

    counts = {}
    for part in ",".join(scale).split(",") if scale else []:
        name, _, number = part.partition("=")
        if not name or not number.isdecimal():
            raise InvalidInputError([f"scale {part!r}: write NAME=N, for instance worker=2"])
        counts[name.strip()] = int(number)
    return counts
