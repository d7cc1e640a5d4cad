"""``wxbroadcast suppression``: imported, shown, taken off."""

from cli_runs import run
from shop import Shop

from producers.settings import Settings


def test_a_file_is_put_on_the_list_and_taken_off_it(settings: Settings, shop: Shop) -> None:
    shop.give("oA", formId="f")
    made = run(settings, "suppression", "import", "-a", "shop", "-", "--json", stdin="oA\noB\n!\n")
    assert (made.code, made.json["added"], made.json["bad"]) == (0, 2, 1)
    shown = run(settings, "suppression", "show", "-a", "shop", "--json").json
    assert shown == {"imported": 2, "opted_out": 0, "invalid": 0, "forgotten": 0}
    card = " ".join(run(settings, "user", "show", "-a", "shop", "--openid", "oA").out.split())
    assert "sent nothing imported" in card
    ran = run(settings, "suppression", "import", "-a", "shop", "-", "--replace", stdin="oB\n")
    assert (ran.code, "left out" in ran.out) == (0, True)
    ran = run(settings, "suppression", "remove", "-a", "shop", "-", "--json", stdin="oA\noB\n")
    assert (ran.json["removed"], ran.json["unknown"]) == (1, 1)
    assert "imported" in run(settings, "suppression", "show", "-a", "shop").out
    nobody = ("suppression", "import", "-a", "shop", "-", "--replace")
    run(settings, *nobody, stdin="oB\n")
    assert run(settings, *nobody, stdin="").code == 2
    assert run(settings, "suppression", "show", "-a", "shop", "--json").json["imported"] == 1
    assert run(settings, *nobody, "--allow-empty", stdin="").code == 0
    assert run(settings, "suppression", "show", "-a", "shop", "--json").json["imported"] == 0


def test_a_user_is_opted_out_and_in(settings: Settings) -> None:
    one = ("-a", "shop", "--openid", "oC")
    assert run(settings, "suppression", "opt-out", *one).err == "oC is sent nothing more\n"
    assert run(settings, "suppression", "show", "-a", "shop", "--json").json["opted_out"] == 1
    assert run(settings, "suppression", "opt-in", *one, "--json").json == {
        "openid": "oC",
        "out": False,
    }
    assert run(settings, "suppression", "show", "-a", "shop", "--json").json["opted_out"] == 0
