"""Lanes in the store: how many there are, who may reach them, and which one call may name."""
