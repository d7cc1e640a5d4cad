"""``wxbroadcast audience``."""

from pathlib import Path

from cli_runs import run

from producers.settings import Settings


def test_an_import_adds_what_is_new(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "vips.csv"
    file.write_text("name,openid\nAda,oA\nBob,oB\nEve,not an openid\n")
    first = run(settings, "audience", "import", "--app", "shop", "vips", file, "--json")
    assert first.code == 0
    assert (first.json["added"], first.json["bad"], first.json["members"]) == (2, 1, 2)
    assert first.json["listed"][0]["row"] == 4
    again = run(settings, "audience", "import", "--app", "shop", "vips", "-", stdin="oB\noC\n")
    assert again.code == 0
    rows = [row.split() for row in again.out.splitlines()]
    assert ["new", "members", "1"] in rows
    assert ["members", "of", "vips", "now", "3"] in rows


def test_rows_without_any_openid_are_an_error(settings: Settings) -> None:
    ran = run(settings, "audience", "import", "--app", "shop", "vips", "-", stdin="!!\n")
    assert ran.code == 1


def test_the_name_all_is_taken(settings: Settings) -> None:
    ran = run(settings, "audience", "import", "--app", "shop", "all", "-", "--json", stdin="oA\n")
    assert ran.code == 2
    assert "all" in ran.json["error"]


def test_audiences_are_listed_with_their_sizes(settings: Settings) -> None:
    run(settings, "audience", "import", "--app", "shop", "vips", "-", stdin="oA\noB\n")
    run(settings, "collect", "--app", "shop", "-", stdin='{"openid": "oA", "formId": "f1"}')
    ran = run(settings, "audience", "list", "--app", "shop", "--json")
    assert ran.json["audiences"] == [
        {"name": "all", "members": 1},
        {"name": "vips", "members": 2},
    ]
    table = run(settings, "audience", "list", "--app", "shop").out
    assert ["vips", "2"] in [row.split() for row in table.splitlines()]


def test_a_count_is_one_number(settings: Settings) -> None:
    run(settings, "audience", "import", "--app", "shop", "vips", "-", stdin="oA\noB\n")
    assert run(settings, "audience", "count", "--app", "shop", "vips").out == "2\n"


def test_an_unknown_audience_is_named_together_with_the_way_out(settings: Settings) -> None:
    ran = run(settings, "audience", "count", "--app", "shop", "nobody", "--json")
    assert ran.code == 2
    assert "audience import" in ran.json["error"]
