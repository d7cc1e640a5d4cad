"""Permits: what users give; uploads read, stored once, counted in a ledger."""
