"""Recipients: who got what: outcomes page by page, receipts, doubts and their decision."""

from producers.recipients.pages import Recipients

__all__ = ["Recipients"]
