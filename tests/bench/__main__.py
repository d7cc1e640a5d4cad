"""``python -m tests.bench``: runs the benchmarks, prints one table, and can write JSON.

Exit code 0 when every sum is right, whatever the figures; 1 when one is wrong.
"""

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import orjson

from producers import logs

from .figures import Report, WrongSumError, show
from .ground import CORES, laid
from .scale import Scale

NAMES: Final = (
    "send",
    "split",
    "limiter",
    "latency",
    "distance",
    "memory",
    "collect",
    "web",
    "idle",
    "report",
    "expiry",
    "metered",
    "tls",
