"""Templates: the lists of what apps may send, read from WeChat."""
