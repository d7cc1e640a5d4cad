"""The console: the live page for people, and how a browser signs in to it."""
