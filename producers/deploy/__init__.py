"""Deploy: files that run wxbroadcast and what is around it, written out for an operator."""

from producers.deploy.write import KINDS, write

__all__ = ["KINDS", "write"]
