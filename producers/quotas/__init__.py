"""Quotas: how much an app may send: its rate, what is left of its day, and WeChat's own word."""

from producers.quotas.limits import AppLimits, Diagnosis, Quota, Quotas

__all__ = ["AppLimits", "Diagnosis", "Quota", "Quotas"]
