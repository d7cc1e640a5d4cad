"""Logs: the catalogue of log events, and the one writer of their lines."""

from producers.logs.lines import close, configure, emit, silence

__all__ = ["close", "configure", "emit", "silence"]
