"""Pumping: trip after trip to Redis, on which messages are taken and slots reserved for them."""
