"""The settings: one frozen tree, read once from ``WXB_`` variables and ``.env``, and passed down.

Nested names use two underscores: ``WXB_APPS__SHOP__RATE_PER_SECOND=300`` equals the field inside
the JSON of ``WXB_APPS``. Unknown ``WXB_`` names are refused, so that a typing error cannot go
unnoticed. No other module reads the environment.
"""

from producers.settings.app import AppSettings
from producers.settings.apps import Apps
from producers.settings.apps_file import AppsFile
from producers.settings.layout import Layout
from producers.settings.proxies import is_excepted, proxies
from producers.settings.reading import faults_of, import_log_processors, load
from producers.settings.tree import Settings
from producers.settings.values import Rate, Unit, kept_rate, ms, rate_faults, signing_keys

__all__ = [
    "AppSettings",
    "Apps",
    "AppsFile",
    "Layout",
    "Rate",
    "Settings",
    "Unit",
    "faults_of",
    "import_log_processors",
    "is_excepted",
    "kept_rate",
    "load",
    "ms",
    "proxies",
    "rate_faults",
    "signing_keys",
]
