"""The store: keys, scripts' texts, connections, and what is done when an answer is lost."""

from producers.store.connection import (
    LAYOUT,
    Client,
    check_layout,
    compare_layout,
    connect,
    connect_async,
    lend,
    open_pool,
)

__all__ = [
    "LAYOUT",
    "Client",
    "check_layout",
    "compare_layout",
    "connect",
    "connect_async",
    "lend",
    "open_pool",
]
