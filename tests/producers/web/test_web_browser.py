"""The page for people, in a real browser: it is drawn whole, and the browser does not complain."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from web_house import House

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (CI installs it)"),
]
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
)


def browse(folder: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    return subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, url],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )


def complaints(seen: subprocess.CompletedProcess[str]) -> list[str]:
    """What the browser's console says: a blocked style, a refused request, an error."""
    return [line for line in seen.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_is_drawn_whole(house: House, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{house.port}/docs"
    picture = tmp_path / "docs.png"
    seen = browse(tmp_path, url, "--window-size=1200,1600", f"--screenshot={picture}")
    assert complaints(seen) == []
    assert picture.stat().st_size > 60_000  # without its styles, or empty, it is far less

    dom = browse(tmp_path, url, "--dump-dom").stdout
    links = re.findall(r'href="#([^"]+)"', dom)
    assert len(links) > 20
    assert {link for link in links if f'id="{link}"' not in dom} == set()
