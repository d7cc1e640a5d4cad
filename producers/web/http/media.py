"""Media types that the service takes or answers with; problems have their own."""

from typing import Final

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
TEXT: Final = "text/plain"
FORM: Final = "multipart/form-data"
HTML: Final = "text/html"
EVENTS: Final = "text/event-stream"
