"""Threads: where library code runs, which blocks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def on_thread(pool: Executor, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run library code, which blocks, on a thread of a pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, partial(call, *args, **kwargs))
