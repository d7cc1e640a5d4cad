"""Lanes: a broadcast's messages in one lane, as scripts of both sides touch them.

Each piece is the one owner of what it names: `flight` of what may be unanswered, `need` of what the
keeper is to do, `ring` of what may be taken from, `pace` of how far it was.
"""
