"""Webhooks: events of broadcasts, stored with what they tell of, and those that were given up."""

from producers.webhooks.letters import DeadLetters

__all__ = ["DeadLetters"]
