"""Relaning: another number of lanes for a living deployment."""

from producers.relaning.looking import Progress
from producers.relaning.moving import Relaned
from producers.relaning.relane import Relaner

__all__ = ["Progress", "Relaned", "Relaner"]
