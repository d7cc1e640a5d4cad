"""The handlers, a file a chapter of the API: what its calls hold, what is done, and its routes.

A handler is thin, from a checked call to an answer. The library does the work.
"""
