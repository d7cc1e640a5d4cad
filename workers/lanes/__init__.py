"""Lanes: what is due in them, done each second by who holds one, or when an edge tells of it."""
