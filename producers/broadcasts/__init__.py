"""Broadcasts: one message to one audience, or to one user: spec, create, split, states, rate."""

from producers.broadcasts.create import Broadcasts, Created

__all__ = ["Broadcasts", "Created"]
