"""Access: who may come in, and how often: keys of backends, tickets of phones, flood limits."""
