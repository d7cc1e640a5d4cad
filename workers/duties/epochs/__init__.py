"""Epochs: what a restarted or promoted server may have forgotten is in doubt, and nothing else."""

from workers.duties.epochs.nodes import NodeEpochs
from workers.duties.epochs.server import Epochs, ServerChangedError, SeveralServersError

__all__ = ["Epochs", "NodeEpochs", "ServerChangedError", "SeveralServersError"]
