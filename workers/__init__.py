"""Everything that takes work out: the actors, the send path, the limiter, the keeper."""
