"""Local: a whole deployment on this machine: Valkey, units, settings of its own.

`Local` is loaded when it is asked for: who only wants the supervisor loads no sandbox.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.local.deployment import Local, LocalError

__all__ = ["Local", "LocalError"]


def __getattr__(name: str) -> Any:
    """Load the deployment when it is asked for."""
    if name in __all__:
        from producers.local import deployment  # noqa: PLC0415

        return getattr(deployment, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
