"""A faithful local WeChat: tokens, both send APIs, login, quotas and events, over real HTTP.

It keeps everything in memory, answers as WeChat does where that is known (each module names its
sources), can be told what goes wrong (``faults.py``), and counts exactly what was delivered to whom
(``control.py``), so that a test can prove that nobody got a message twice. What it does not have:
official-account messages, template administration, service cards, TLS.
"""

from producers.sandbox.config import SandboxConfig, Taking, TemplateApi
from producers.sandbox.control.grants import Grants
from producers.sandbox.control.orders import Control
from producers.sandbox.faults import FaultAction, FaultRule
from producers.sandbox.latency import Latency, Tail
from producers.sandbox.memory.quota import Quota
from producers.sandbox.memory.templates import Template
from producers.sandbox.pushes.events import Callback, PushFormat, PushMode, ReceiptRule
from producers.sandbox.replies import Era
from producers.sandbox.server import Sandbox, run
from producers.sandbox.state import Part

__all__ = [
    "Callback",
    "Control",
    "Era",
    "FaultAction",
    "FaultRule",
    "Grants",
    "Latency",
    "Part",
    "PushFormat",
    "PushMode",
    "Quota",
    "ReceiptRule",
    "Sandbox",
    "SandboxConfig",
    "Tail",
    "Taking",
    "Template",
    "TemplateApi",
    "run",
]
