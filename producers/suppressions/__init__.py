"""Suppressions: who is sent nothing, and why: imported, opted out, not a user, forgotten."""

from producers.suppressions.suppressions import Reason, Suppressions

__all__ = ["Reason", "Suppressions"]
