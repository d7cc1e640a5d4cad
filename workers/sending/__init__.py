"""Sending: the way of a message: take, gate, reserve, POST, judge, settle."""
