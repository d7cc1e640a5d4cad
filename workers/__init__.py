"""Everything that takes work out: the actors, the send path, the limiter, the keeper.

Run it with Dramatiq's own command, one process per unit: ``dramatiq workers -p 1``. Importing it
declares the broker and its actors and opens nothing: settings are read at worker boot.
"""

from workers.actors import broker, send, split

__all__ = ["broker", "send", "split"]
