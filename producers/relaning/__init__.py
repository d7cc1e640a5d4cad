"""Relaning: another number of lanes for a living deployment."""

from producers.relaning.relane import Progress, Relaned, Relaner

__all__ = ["Progress", "Relaned", "Relaner"]
