"""Limits: how much of an app may be sent, by WeChat's word, this worker's own and its share."""
