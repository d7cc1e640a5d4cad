"""Quotas: what WeChat itself says of an app's quota, and of what it refused."""
