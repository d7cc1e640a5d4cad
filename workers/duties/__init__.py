"""Duties: what a worker does beside sending, by level and not by edge."""
