"""The board: what a whole deployment is doing at one moment, for whoever watches it."""

from producers.board.board import AppLine, Board, Boards

__all__ = ["AppLine", "Board", "Boards"]
