"""Pushes: what the sandbox tells the app's callback address."""
