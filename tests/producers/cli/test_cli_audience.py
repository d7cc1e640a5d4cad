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


def test_an_import_that_replaces_leaves_the_new_ones_alone(settings: Settings) -> None:
    into = ("audience", "import", "-a", "shop", "vips", "-")
    run(settings, *into, stdin="oA\noB\n")
    ran = run(settings, *into, "--replace", "--json", stdin="oB\noC\noD\n")
    assert (ran.code, ran.json["added"], ran.json["known"], ran.json["removed"]) == (0, 2, 1, 1)
    assert ran.json["members"] == 3
    assert run(settings, *into, "--replace", stdin="?\n").code == 1
    again = run(settings, *into, "--replace", stdin="oA\n")
    assert ["left", "out", "3"] in [row.split() for row in again.out.splitlines()]


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


def test_an_expression_is_counted_one_by_one(settings: Settings) -> None:
    for name, rows in (("vips", "oA\noB\n"), ("gone", "oB\noC\n")):
        run(settings, "audience", "import", "--app", "shop", name, "-", stdin=rows)
    assert run(settings, "audience", "count", "--app", "shop", "vips - gone").out == "1\n"
    ran = run(settings, "audience", "count", "--app", "shop", "vips gone", "--json")
    assert (ran.code, "at 6: put & | or - before 'gone'" in ran.json["error"]) == (2, True)


def test_an_unknown_audience_is_named_together_with_the_way_out(settings: Settings) -> None:
    ran = run(settings, "audience", "count", "--app", "shop", "nobody", "--json")
    assert ran.code == 2
    assert "audience import" in ran.json["error"]


def test_members_are_taken_out_by_a_file(settings: Settings) -> None:
    run(settings, "audience", "import", "-a", "shop", "vips", "-", stdin="oA\noB\noC\n")
    removed = run(settings, "audience", "remove", "-a", "shop", "vips", "-", stdin="oA\noX\n!!\n")
    assert removed.code == 0
    rows = [" ".join(row.split()) for row in removed.out.splitlines()]
    assert {"removed 1", "no members 1", "without an openid 1", "members of vips now 2"} <= set(
        rows
    )
    args = ("audience", "remove", "-a", "shop", "vips", "-", "--json")
    again = run(settings, *args, stdin="oA\noB\n").json
    assert (again["removed"], again["unknown"], again["members"]) == (1, 1, 1)
    assert run(settings, *args, stdin="!!\n").code == 1


def test_nobody_is_taken_out_of_all(settings: Settings) -> None:
    ran = run(settings, "audience", "remove", "-a", "shop", "all", "-", "--json", stdin="oA\n")
    assert ran.code == 2
    assert "forget" in ran.json["error"]


def test_a_deleted_audience_is_gone(settings: Settings) -> None:
    for name in ("vips", "old"):
        run(settings, "audience", "import", "-a", "shop", name, "-", stdin="oA\noB\n")
    ran = run(settings, "audience", "delete", "-a", "shop", "vips")
    assert ran.code == 0
    assert "vips is deleted; it had 2 members" in ran.err
    deleted = run(settings, "audience", "delete", "-a", "shop", "old", "--json").json
    assert deleted == {"audience": "old", "deleted": 2}
    assert run(settings, "audience", "count", "-a", "shop", "vips").code == 2
    assert run(settings, "audience", "delete", "-a", "shop", "vips").code == 2
    assert run(settings, "audience", "delete", "-a", "shop", "all").code == 2


def test_a_long_list_goes_on_where_a_page_ended(settings: Settings) -> None:
    for name in ("a", "b", "c"):
        run(settings, "audience", "import", "-a", "shop", name, "-", stdin="oA\n")
    args = ("audience", "list", "-a", "shop", "--limit", 2)
    first = run(settings, *args)
    assert "--cursor a" in first.err
    rest = run(settings, *args, "--cursor", "a", "--json").json
    assert [one["name"] for one in rest["audiences"]] == ["b", "c"]
    assert rest["cursor"] == ""
    assert run(settings, *args, "--cursor", "a b").code == 2
