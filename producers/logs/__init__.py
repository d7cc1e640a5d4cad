"""Logs: the catalogue of log events, and the one writer of their lines."""

from producers.logs.lines import (
    close,
    configure,
    configure_unless_hosted,
    dropped,
    emit,
    silence,
    told,
)
from producers.logs.redaction import redacted

__all__ = [
    "close",
    "configure",
    "configure_unless_hosted",
    "dropped",
    "emit",
    "redacted",
    "silence",
    "told",
]
