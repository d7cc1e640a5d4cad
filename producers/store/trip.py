"""A trip: questions that go to Redis together, and whose answers are awaited together.

However far Redis is, it costs one round trip (on a cluster: to each node at once), where questions
one after the other cost one each. They are no transaction: each is answered for itself, in order.
"""

from typing import Any

from redis.exceptions import NoScriptError

from producers.store import Client
from producers.store.scripts import Call


class Trip:
    """Collects questions, and asks them once. Used by one thread."""

    def __init__(self, client: Client) -> None:
        self._pipeline = client.pipeline(transaction=False)
        self._asked: list[Call | None] = []

    def __len__(self) -> int:
        return len(self._asked)

    def call(self, call: Call) -> int:
        """Run a script; returns the place of its answer."""
        call.into(self._pipeline)
        self._asked.append(call)
        return len(self._asked) - 1

    def ask(self, *command: str) -> int:
        """Run a command; returns the place of its answer."""
        self._pipeline.execute_command(*command)
        self._asked.append(None)
        return len(self._asked) - 1

    def go(self) -> list[Any]:
        """Return the answers in their places; where Redis refused one, the error stands there.

        Raises:
            redis.ConnectionError, redis.TimeoutError: nobody knows which of them were done.
        """
        if not self._asked:
            return []
        answers = self._pipeline.execute(raise_on_error=False)
        for place, (call, answer) in enumerate(zip(self._asked, answers, strict=True)):
            if call is not None and isinstance(answer, NoScriptError):
                answers[place] = call.run()  # which loads it: a server that was restarted
        return list(answers)
