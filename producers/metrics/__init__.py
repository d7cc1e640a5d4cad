"""Metrics: figures for Prometheus, of a process and of the whole deployment.

Names follow Prometheus's rules: base units, ``_total`` for what only grows, few and bounded labels;
no openid, no id of a broadcast. Source: Prometheus docs, metric and label naming.
"""

from producers.metrics.deployment import Deployment
from producers.metrics.meter import Meter
from producers.metrics.text import MEDIA, exposed, registry_of

__all__ = ["MEDIA", "Deployment", "Meter", "exposed", "registry_of"]
