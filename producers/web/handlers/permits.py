"""Handlers: permits."""

from typing import Final

from producers.permits.collect import Report
from producers.web.call import Call
from producers.web.handlers.streams import on_stream
from producers.web.http.answer import Answer
from producers.web.models import Collected, Refused

_FEW: Final = 20
"""Uploads that share a trip with other requests; more of them fill one of their own."""


async def collect_permits(call: Call) -> Answer:
    """File permits: one upload, several, or a stream of lines."""
    services, app = call.services, call.app
    if call.streams:
        return Answer(
            value=collected(await on_stream(call, services.collector.collect_lines, app, call.body))
        )
    uploads = call.body if isinstance(call.body, list) else [call.body]
    if len(uploads) <= _FEW:
        report = await services.batcher.collect(app, uploads)
    else:
        report = await call.run(services.collector.collect, app, uploads)
    return Answer(value=collected(report))


def collected(report: Report) -> Collected:
    """Return a report as it is answered."""
    return Collected(
        lines=report.lines,
        new=report.new,
        known=report.known,
        refused=dict(report.refused),
        listed=[
            Refused(line=line, reason=reason, detail=detail)
            for line, reason, detail in report.listed
        ],
    )
