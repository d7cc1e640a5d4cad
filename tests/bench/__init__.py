"""Benchmarks: what a message costs, how exact the limiter is, how much memory it all takes.

``python -m tests.bench`` from a checkout runs them all (``--quick`` in under two minutes). Each
module is one benchmark: its docstring says what is measured, what is left out, and why the
baseline beside it is fair. Every benchmark counts what arrived and fails when a sum is wrong;
whether a goal is reached is printed and decides nothing, for machines differ.
"""
