"""Calls: what the sandbox answers, one file a call of WeChat's API."""
