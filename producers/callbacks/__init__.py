"""WeChat's callbacks: pushes checked and kept at once, acted on afterwards.

``Callbacks.verify`` answers the console's URL check, ``receive`` takes one push, ``work`` acts on
what was taken, and ``run`` is the loop that a web process gives a thread.
"""

from producers.callbacks.callbacks import Callbacks

__all__ = ["Callbacks"]
