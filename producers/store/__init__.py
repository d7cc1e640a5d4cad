"""The store: keys, scripts' texts, connections, and what is done when an answer is lost."""

from producers.store.connection import (
    Client,
    as_sent,
    await_answer,
    away,
    connect,
    connect_async,
    is_cluster,
    nodes_of,
    pool_of,
    sentinels_of,
    silent,
)
from producers.store.lanes.absent import Absent, absent
from producers.store.lanes.layout import LAYOUT, check_layout, compare_layout
from producers.store.patience import lend

__all__ = [
    "LAYOUT",
    "Absent",
    "Client",
    "absent",
    "as_sent",
    "await_answer",
    "away",
    "check_layout",
    "compare_layout",
    "connect",
    "connect_async",
    "is_cluster",
    "lend",
    "nodes_of",
    "pool_of",
    "sentinels_of",
    "silent",
]
