"""The documents of the API, made once per process: for machines, and for people."""

from collections.abc import Sequence

import orjson

from producers.web.openapi import document
from producers.web.page import page
from producers.web.route import Route


class Documents:
    """The documents.

    Attributes:
        openapi: the OpenAPI document, JSON.
        page: the same as HTML.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        made = document(routes)
        self.openapi = orjson.dumps(made)
        self.page = page(made).encode()
