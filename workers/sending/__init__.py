"""Sending: the way of a message: take, reserve, POST, judge, settle."""
