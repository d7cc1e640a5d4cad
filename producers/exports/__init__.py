"""Exports: one app's users, audiences and suppressions as lines, for another deployment."""

from producers.exports.export import Exporter
from producers.exports.importing import Importer

__all__ = ["Exporter", "Importer"]
