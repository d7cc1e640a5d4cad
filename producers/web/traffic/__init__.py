"""Traffic: what many requests share: batches, turns, places, a key's rate, answers given before."""
