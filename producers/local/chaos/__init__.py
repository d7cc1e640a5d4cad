"""Chaos: the proof of "nobody twice, nobody forgotten", by killing it."""
