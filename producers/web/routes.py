"""The table of routes: all that the service does, in the order of its documents."""

from typing import Final

from producers.web.console import page
from producers.web.console import sessions as console_sessions
from producers.web.handlers import (
    audiences,
    broadcasts,
    callbacks,
    door,
    exports,
    health,
    lifecycle,
    messages,
    permits,
    planning,
    recipients,
    rehearsals,
    retries,
    series,
    suppressions,
    templates,
    users,
    webhooks,
)
from producers.web.routing.route import Route

TABLE: Final[tuple[Route, ...]] = (
    *permits.ROUTES,
    *planning.ROUTES,
    *audiences.ROUTES,
    *suppressions.ROUTES,
    *broadcasts.ROUTES,
    *rehearsals.ROUTES,
    *recipients.ROUTES,
    *lifecycle.ROUTES,
    *retries.ROUTES,
    *series.ROUTES,
    *messages.ROUTES,
    *templates.ROUTES,
    *users.ROUTES,
    *exports.ROUTES,
    *door.ROUTES,
    *callbacks.ROUTES,
    *webhooks.ROUTES,
    *page.ROUTES,
    *console_sessions.ROUTES,
    *health.ROUTES,
)
