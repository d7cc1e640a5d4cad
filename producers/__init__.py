"""Everything that puts work in: collecting permits, audiences, broadcasts, the command line.

``from producers import Producer`` is the door for Python backends. Importing does nothing: no
settings are read, no connection is opened, no worker code is loaded.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.producer import AsyncProducer, Producer

__all__ = ["AsyncProducer", "Producer"]


def __getattr__(name: str) -> Any:
    """Load the Python door when it is asked for: the words alone cost nothing."""
    if name in __all__:
        from producers import producer  # noqa: PLC0415

        return getattr(producer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
