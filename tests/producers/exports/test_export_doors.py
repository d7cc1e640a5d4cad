"""Export and import by command line, HTTP and Python: the same lines, the same sums."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
from cli_runs import run
from shop import TEMPLATE, Shop
from web_house import Caller, opened

from producers.producer import AsyncProducer, Producer
from producers.settings import Settings
from producers.store import keys


@pytest.fixture
def full(shop: Shop) -> Shop:
    for n in range(30):
        shop.give(f"o{n}", formIds=[f"f{n}"], subscriptions={TEMPLATE: "accept"}, id="1")
    shop.audiences.import_rows("shop", "vip", ["o1", "o2"])
    return shop


def lose(shop: Shop) -> None:
    """Forget all but the deployment itself, as a Redis without its file does."""
    for key in set(shop.client.scan_iter()) - {keys.DEPLOYMENT}:
        shop.client.delete(key)


def test_the_command_line_writes_a_file_and_reads_it(
    full: Shop, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "shop.ndjson"
    ran = run(settings, "export", "--app", "shop", file, "--json")
    assert (ran.code, ran.json["users"], ran.json["uses"]) == (0, 30, {"f": 30, "s": 30})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["shop.ndjson"]
    known = run(settings, "import", "--app", "shop", file, "--json")
    assert (known.code, known.json["known"], known.json["left_out"]) == (0, 30, 30)
    lose(full)
    ran = run(settings, "import", "--app", "shop", file, "--again", "--json")
    assert (ran.code, ran.json["new"]) == (0, {"f": 30, "p": 0, "s": 30})
    assert ran.json["audiences"] == {"vip": 2}
    assert "30" in run(settings, "import", "--app", "shop", file).out
    assert not full.wrong()


def test_stdout_and_stdin_are_files_too(full: Shop, settings: Settings) -> None:
    out = run(settings, "export", "--app", "shop").out
    assert len(out.splitlines()) == 30 + 3
    lose(full)
    ran = run(settings, "import", "--app", "shop", "-", "--json", stdin=out)
    assert (ran.code, ran.json["whole"], ran.json["users"]) == (0, True, 30)


def test_a_cut_file_and_a_foreign_one_have_codes_of_their_own(
    full: Shop, settings: Settings
) -> None:
    out = run(settings, "export", "--app", "shop").out
    cut = "".join(out.splitlines(keepends=True)[:-1])
    ran = run(settings, "import", "--app", "shop", "-", stdin=cut)
    assert (ran.code, "cut short" in ran.err) == (1, True)
    ran = run(settings, "import", "--app", "shop", "-", "--json", stdin="openid\noA\n")
    assert (ran.code, "no file of" in ran.json["error"]) == (2, True)
    assert run(settings, "import", "--app", "shop", "/nowhere/at/all").code == 2
    assert run(settings, "export", "--app", "shop", "/nowhere/at/all").code == 2
    assert run(settings, "export", "--app", "nobody").code == 2


def test_the_service_streams_them(full: Shop, settings: Settings) -> None:
    with opened(settings) as house:
        admin = house.caller("admin")
        got = admin.get("/v1/apps/shop/export")
        lines = got.body.splitlines(keepends=True)
        assert (got.status, orjson.loads(lines[-1])["end"]["sums"]["users"]) == (200, 30)
        again = admin.post("/v1/apps/shop/import", got.body, "application/x-ndjson")
        assert (again.json["whole"], again.json["known"], again.json["left_out"]) == (True, 30, 30)
        cut = admin.post("/v1/apps/shop/import", b"".join(lines[:3]), "application/x-ndjson")
        assert (cut.status, cut.json["whole"]) == (200, False)
        wrong = admin.post("/v1/apps/shop/import", b"oA\n", "application/x-ndjson")
        assert (wrong.status, wrong.kind) == (422, "invalid")
        reader: Caller = house.caller("read", "send", "collect")
        assert reader.get("/v1/apps/shop/export").status == 403
        assert reader.post("/v1/apps/shop/import", b"", "application/x-ndjson").status == 403


def test_python_yields_and_takes_them(full: Shop, settings: Settings) -> None:
    producer = Producer(settings)
    lines = list(producer.export_app("shop"))
    assert len(lines) == 30 + 3

    async def ask() -> tuple[list[bytes], Any]:
        async with AsyncProducer(settings) as awaited:
            again = [line async for line in awaited.export_app("shop")]
            lose(full)
            return again, await awaited.import_app("shop", lines, again=True)

    again, report = asyncio.run(ask())
    assert len(again) == len(lines)
    assert (report.whole, report.users, report.added) == (True, 30, 60)
    producer.close()


def test_the_suppressed_are_exported_by_each_door(shop: Shop, settings: Settings) -> None:
    run(settings, "suppression", "import", "--app", "shop", "-", stdin="oA\noB\n")
    run(settings, "suppression", "opt-out", "--app", "shop", "--openid", "oC")
    expected = "openid,reason\noA,imported\noB,imported\noC,opted_out\n"
    ran = run(settings, "suppression", "export", "--app", "shop")
    assert sorted(ran.out.splitlines()[1:]) == expected.splitlines()[1:]
    with Producer(settings) as producer:
        assert b"".join(sorted(producer.export_suppressed("shop"))[:-1]) in expected.encode()
    with opened(settings) as house:
        got = house.caller(apps=("shop",)).get("/v1/apps/shop/suppressions/members")
        assert sorted(got.body.decode().splitlines()) == sorted(expected.splitlines())
