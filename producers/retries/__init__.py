"""Retries: a broadcast once more, to those of its recipients alone who had one of some outcomes."""

from producers.retries.retry import Retried, Retries

__all__ = ["Retried", "Retries"]
