"""Audiences: named sets of openids: members come, go, are counted."""

from producers.audiences.members import Audiences
from producers.audiences.names import ALL

__all__ = ["ALL", "Audiences"]
