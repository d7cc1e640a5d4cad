"""Routing: a route as data, and all that reads it: router, body, OpenAPI, page."""
