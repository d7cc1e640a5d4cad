"""``wxbroadcast web``: the HTTP service."""

from typing import Annotated

import typer

from producers.cli.session import guarded


def web(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: WXB_WEB_HOST (127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, 0: a free one; default: WXB_WEB_PORT (8080)."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes on that port; default: WXB_WEB_PROCESSES (1)."),
    ] = None,
) -> None:
    """Run the HTTP service until SIGTERM or Ctrl-C; then finish what runs, and end.

    The API is described at /docs (for people) and /openapi.json. Keys: `wxbroadcast keys create`.
    """
    with guarded(as_json=False):
        from producers import settings
        from producers.web import processes as web_processes
        from producers.web import server

        loaded = settings.load()
        host = loaded.web_host if host is None else host
        port = loaded.web_port if port is None else port
        count = loaded.web_processes if processes is None else processes
        pipe = web_processes.child_pipe()
        if pipe is not None:
            code = server.run(loaded, server.Place(host, port, shared=True), parent=pipe)
        elif count == 1:
            code = server.run(loaded, server.Place(host, port))
        else:
            code = web_processes.run(server.Place(host, port), count)
        if code:
            raise typer.Exit(code)
