"""Users: one user: the card, and forgetting."""

from producers.users.card import UserCard, Users

__all__ = ["UserCard", "Users"]
