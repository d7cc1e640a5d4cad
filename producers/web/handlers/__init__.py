"""The handlers: thin, from a checked call to an answer. The library does the work."""
