"""``wxbroadcast sandbox``: the local WeChat as a process."""

from pathlib import Path
from typing import Annotated, Any

import typer

from producers.cli.session import guarded


def sandbox(
    host: Annotated[
        str, typer.Option(help="Address to listen on; it has no password, so keep to loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 8800,
    permits: Annotated[
        str | None,
        typer.Option(
            metavar="given|any",
            help="given: only permits handed out through the control API; any: unknown ones too.",
        ),
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(min=0, help="Milliseconds that every answer takes.")
    ] = None,
    median_ms: Annotated[
        float | None, typer.Option(min=0, help="Median of a lognormal time on top of that.")
    ] = None,
    sigma: Annotated[float | None, typer.Option(min=0, help="Its spread, e.g. 0.5.")] = None,
    template_api: Annotated[
        str | None,
        typer.Option(metavar="alive|retired|retired_46101", help="What became of template/send."),
    ] = None,
    known_openids_only: Annotated[
        bool, typer.Option("--known-openids-only", help="40003 for openids that nobody named.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of all its fields; the options above win."),
    ] = None,
) -> None:
    """Run a faithful local WeChat until Ctrl-C.

    Set WXB_WECHAT_URL to the address that it prints. Its control API under /_sandbox/ hands out
    permits, makes faults, and counts what arrived: see `producers.sandbox.control`.
    """
    with guarded(as_json=False):
        from pydantic import ValidationError

        from producers.errors import InvalidInputError
        from producers.sandbox import SandboxConfig, run

        fields = _read(config)
        given = {"permits": permits, "template_api": template_api}
        fields |= {name: value for name, value in given.items() if value is not None}
        timing = {"fixed_ms": latency_ms, "median_ms": median_ms, "sigma": sigma}
        timing = {name: value for name, value in timing.items() if value is not None}
        if timing:
            fields["latency"] = {**fields.get("latency", {}), **timing}
        if known_openids_only:
            fields["known_openids_only"] = True
        try:
            checked = SandboxConfig.model_validate(fields)
        except ValidationError as error:
            raise InvalidInputError(
                [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            ) from error
        try:
            run(host, port, checked)
        except OSError as error:
            where = f"{host}:{port}"
            raise InvalidInputError([f"cannot listen on {where}: {error.strerror}"]) from error


def _read(config: Path | None) -> dict[str, Any]:
    import orjson

    from producers.errors import InvalidInputError

    if config is None:
        return {}
    try:
        fields = orjson.loads(config.read_bytes())
    except OSError as error:
        raise InvalidInputError([f"cannot read {config}: {error.strerror}"]) from error
    except orjson.JSONDecodeError as error:
        raise InvalidInputError([f"{config} is not JSON: {error}"]) from error
    if not isinstance(fields, dict):
        raise InvalidInputError([f"{config} is not a JSON object"])
    return fields
