"""Quotas: how much an app may send, by its settings and by WeChat's own word."""

from producers.quotas.limits import AppLimits, Diagnosis, Quota, Quotas

__all__ = ["AppLimits", "Diagnosis", "Quota", "Quotas"]
