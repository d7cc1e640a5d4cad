"""Rehearsals: what a broadcast would do, before it goes out: reckoned, or tried on a few."""

from producers.rehearsals.dry_run import DryRun, DryRuns

__all__ = ["DryRun", "DryRuns"]
