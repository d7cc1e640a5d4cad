"""Deploy: files that run what is around wxbroadcast, written out where an operator wants them."""

from producers.deploy.write import KINDS, write

__all__ = ["KINDS", "write"]
