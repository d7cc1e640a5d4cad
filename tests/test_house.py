"""The house: the pictures of its rooms equal the rules that CI checks, and no room is too full.

In a picture a line is a floor, or ``▸`` leads from one floor to the next; names are told by what
they end with, ``room/`` or ``module.py``, from the words beside them.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"(?<!\S)(\w+)(/|\.py)(?!\S)")
MOST = {"producers": 10}
"""Modules that may lie in a room, of those that may hold fewer than the others."""

MOST_OF_ALL = 20
"""Modules and scripts of any room: what one can look over."""

PICTURES = {
    "producers": "README.md",
    "workers": "README.md",
    "producers.web": "producers/web/README.md",
}


def floors(package: str) -> list[set[str]]:
    """Return the floors of a package, the highest first, as import-linter checks them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [contract] = [
        one
        for one in project["tool"]["importlinter"]["contracts"]
        if one.get("containers") == [package]
    ]
    assert contract["type"] == "layers"
    assert contract["exhaustive"], "a room that is not drawn would break no rule"
    return [{name.strip() for name in re.split("[|:]", layer)} for layer in contract["layers"]]


def drawn(package: str) -> list[list[tuple[str, str]]]:
    """Return the floors of a package as they are drawn: of each room its name and its ending."""
    text = (ROOT / PICTURES[package]).read_text("utf-8")
    top = f"{package.rpartition('.')[2]}/"
    found = re.search(rf"^{top}.*\n((?: +.*\n)+)", text, re.MULTILINE)
    assert found is not None, f"no picture of {package}"
    lines = [floor for line in found[1].splitlines() for floor in line.split("▸")]
    return [NAME.findall(line) for line in lines]


def folders() -> Iterator[Path]:
    for top in ("producers", "workers"):
        yield ROOT / top
        for path in sorted((ROOT / top).rglob("*")):
            if path.is_dir() and path.name != "__pycache__" and list(path.glob("*.py")):
                yield path


@pytest.mark.parametrize("package", PICTURES)
def test_the_picture_of_the_rooms_equals_the_rules(package: str) -> None:
    picture = drawn(package)
    assert [{name for name, _ in floor} for floor in picture] == floors(package)
    assert sum(map(len, picture)) == sum(map(len, floors(package))), "one is drawn twice"
    for name, ending in (one for floor in picture for one in floor):
        place = ROOT / package.replace(".", "/") / name
        assert (place if ending == "/" else place.with_suffix(".py")).exists(), name


def test_workers_may_use_producers_and_never_the_other_way_round() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = [one.get("layers") for one in project["tool"]["importlinter"]["contracts"]]
    assert ["workers", "producers"] in layers


def test_a_room_holds_what_one_can_look_over() -> None:
    for folder in folders():
        modules = [path for path in folder.glob("*.py") if path.stem != "__init__"]
        scripts = list(folder.glob("*.lua"))
        room = str(folder.relative_to(ROOT))
        assert len(modules) <= MOST.get(room, MOST_OF_ALL), room
        assert len([*modules, "__init__", *scripts]) <= MOST_OF_ALL, room


def test_every_room_says_what_it_is_for() -> None:
    for folder in folders():
        charter = (folder / "__init__.py").read_text("utf-8")
        assert charter.startswith('"""'), folder


def test_each_word_of_a_room_leads_to_where_it_lives() -> None:
    rooms = [path for top in ("producers", "workers") for path in (ROOT / top).rglob("README.md")]
    words = 0
    for room in rooms:
        for table in room.read_text("utf-8").split("| word | meaning | where |\n")[1:]:
            for row in table.split("\n\n")[0].splitlines()[1:]:
                word, _, where = (cell.strip(" `") for cell in row.strip("|").split("|"))
                assert (room.parent / f"{where}.py").is_file(), (word, where)
                words += 1
    assert words > 40
