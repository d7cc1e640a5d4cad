"""Rehearsals: what a broadcast would do, before it goes out: reckoned, or tried on a few."""

from producers.rehearsals.dry_run import DryRun, DryRuns
from producers.rehearsals.trials import Trial, Trials, Tried

__all__ = ["DryRun", "DryRuns", "Trial", "Trials", "Tried"]
