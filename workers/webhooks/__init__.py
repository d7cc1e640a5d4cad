"""Webhooks on their way: where they may go, how they are signed, posted and repeated."""
