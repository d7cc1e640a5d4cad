"""Audiences: named sets of openids: members come, go, are counted."""

from producers.audiences.members import ALL, Audiences

__all__ = ["ALL", "Audiences"]
