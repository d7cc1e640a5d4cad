"""``wxbroadcast miniprogram``: what a wheel has for phones, as files."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cli_runs import run

from producers.settings import Settings

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "producers" / "miniprogram"
FILES = sorted(
    str(path.relative_to(SOURCE))
    for path in SOURCE.rglob("*")
    if path.is_file() and path.name != "README.md"
)


def written(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_script_and_sample_are_copied_as_they_are(settings: Settings, tmp_path: Path) -> None:
    ran = run(settings, "miniprogram", tmp_path / "new" / "shop")
    assert ran.code == 0
    assert ran.out.splitlines() == [str(tmp_path / "new" / "shop" / name) for name in FILES]
    assert "pushCode.start" in ran.err
    assert written(tmp_path / "new" / "shop") == {
        name: (SOURCE / name).read_bytes() for name in FILES
    }
    assert {"push-code.js", "app.json", "pages/check-in/check-in.wxml"} <= set(FILES)


def test_json_names_what_was_written(settings: Settings, tmp_path: Path) -> None:
    ran = run(settings, "miniprogram", tmp_path, "--json")
    assert (ran.code, ran.json) == (0, {"folder": str(tmp_path), "files": FILES})


def test_what_is_there_is_not_overwritten_and_nothing_is_written_beside_it(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "app.js").write_text("App({}); // mine")
    ran = run(settings, "miniprogram", tmp_path, "--json")
    assert ran.code == 2
    [fault] = ran.json["faults"]
    assert fault == (
        f"{tmp_path}/app.js is there already: --force overwrites, or --script: push-code.js alone"
    )
    assert written(tmp_path) == {"app.js": b"App({}); // mine"}
    assert run(settings, "miniprogram", tmp_path, "--script").code == 0
    assert sorted(written(tmp_path)) == ["app.js", "push-code.js"]
    assert (tmp_path / "app.js").read_text() == "App({}); // mine"
    assert run(settings, "miniprogram", tmp_path, "--force").code == 0
    assert (tmp_path / "app.js").read_bytes() == (SOURCE / "app.js").read_bytes()


def test_the_same_again_is_fine(settings: Settings, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(settings, "miniprogram", tmp_path).code == 0
    (tmp_path / "push-code.js").write_text("// an older one")
    assert run(settings, "miniprogram", tmp_path, "--script").code == 2
    assert run(settings, "miniprogram", tmp_path, "--script", "--force").code == 0


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_is_none_is_said(settings: Settings, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    ran = run(settings, "miniprogram", tmp_path / place, "--json")
    assert ran.code == 2
    assert "file" in ran.json["error"]
    assert "Traceback" not in ran.err


def test_it_needs_no_settings(tmp_path: Path) -> None:
    env = {name: text for name, text in os.environ.items() if not name.startswith("WXB_")}
    done = subprocess.run(
        [sys.executable, "-m", "producers.cli", "miniprogram", "shop"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"shop/{name}" for name in FILES]


def test_it_reads_a_zipped_package(tmp_path: Path) -> None:
    """An import from a zip has no files beside it: the resources are read, not their paths."""
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in (ROOT / "producers").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(ROOT))
    code = "from producers.cli import main; import producers; assert '.zip' in producers.__file__"
    subprocess.run(
        [sys.executable, "-c", f"{code}; main()", "miniprogram", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "package.zip")},
        capture_output=True,
        check=True,
    )
    assert sorted(written(tmp_path / "out")) == FILES
