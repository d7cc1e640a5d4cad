"""Ordering: of a broadcast that takes long, those whose last permit ends first go first."""
