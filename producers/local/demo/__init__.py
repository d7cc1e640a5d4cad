"""The demo: the show whose sums are checked."""
