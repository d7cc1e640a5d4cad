"""The text that Prometheus reads."""

from collections.abc import Iterable
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

MEDIA: Final = CONTENT_TYPE_LATEST


class Collector(Protocol):
    """What has figures to tell."""

    def collect(self) -> Iterable[Metric]:
        """Return them, as they are now."""
        ...


def exposed(*collectors: Collector) -> bytes:
    """Return the figures of some collectors, in Prometheus's text format."""
    return generate_latest(registry_of(*collectors))


def registry_of(*collectors: Any) -> CollectorRegistry:
    """Return a registry of these alone; each is asked when somebody reads it, and not before."""
    registry = CollectorRegistry(auto_describe=False)
    for one in collectors:
        registry.register(one)
    return registry
