"""Processors: what an application does to each line of ours before it is written.

They are structlog's: callables that get a logger (None here), the level and the line, a dict, and
return the line that the next one gets, or raise ``structlog.DropEvent``. They run where the line
comes from, the sending's event loop too: one that waits holds up the sending.

One that fails ends nobody. Its line is left out, for it may be the one that takes a name out of it;
the line counts as dropped (``dropped_lines``), and the first failure at each event is told by a
line of its own (``log_processor_failed``), which goes past all processors. What a processor logs
itself goes past them too.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from importlib import import_module
from typing import Any, Final

import structlog

from producers.logs.events import LogProcessorFailed
from producers.logs.redaction import redacted

Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]
Render = Callable[[Any], bytes]

_ERROR: Final = 500
"""Characters of a failure that are told."""


class Processors:
    """A chain of them with the renderer at its end: from a line to its bytes.

    Args:
        processors: the application's.
        render: makes the bytes.
        fail: told of each line that is lost; with an event when nobody was told of its like.
    """

    def __init__(
        self,
        processors: Iterable[Processor],
        render: Render,
        fail: Callable[[LogProcessorFailed | None], None],
    ) -> None:
        self._processors = tuple(processors)
        self._render = render
        self._fail = fail
        self._told: set[tuple[int, str]] = set()
        self._within = threading.local()

    def __call__(self, _logger: Any, level: str, line: MutableMapping[str, Any]) -> bytes:
        """Return the line as it is written.

        Raises:
            structlog.DropEvent: nothing is to be written.
        """
        if not self._processors or getattr(self._within, "one", False):
            return self._render(line)
        self._within.one = True
        event, step = str(line.get("event")), 0
        try:
            for processor in self._processors:
                line = processor(None, level, line)
                if not isinstance(line, Mapping):
                    raise TypeError(f"it returned {type(line).__name__}, not a line")  # noqa: TRY301
                step += 1
            return self._render(line)
        except structlog.DropEvent:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it was, the sending goes on)
            self._fail(self._failure(step, event, error))
            raise structlog.DropEvent from None
        finally:
            self._within.one = False

    def _failure(self, step: int, event: str, error: Exception) -> LogProcessorFailed | None:
        """Return what is to be told; None when it was told before."""
        if (step, event) in self._told:
            return None
        self._told.add((step, event))
        name = "the renderer"
        if step < len(self._processors):
            processor = self._processors[step]
            name = getattr(processor, "__qualname__", type(processor).__qualname__)
        said = redacted(f"{type(error).__name__}: {error}")[:_ERROR]
        return LogProcessorFailed(name, event, said)


def imported(names: str) -> list[Processor]:
    """Import processors.

    Args:
        names: as ``package.module:name``, with commas between them.

    Raises:
        ValueError: one of them cannot be imported; the message says which and why.
    """
    return [_imported(name) for name in filter(None, map(str.strip, names.split(",")))]


def _imported(name: str) -> Processor:
    module, _, attribute = name.partition(":")
    try:
        processor: Processor = getattr(import_module(module), attribute)
    except Exception as error:
        raise ValueError(f"{name}: {type(error).__name__}: {error}") from error
    if not callable(processor):
        raise ValueError(f"{name} is not callable")  # noqa: TRY004 - a setting's value
    return processor
