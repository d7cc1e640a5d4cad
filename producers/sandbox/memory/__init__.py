"""Memory: what the sandbox knows."""
