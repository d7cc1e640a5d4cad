"""The logs of real units add up to what Redis counted, of whatever became of the broadcasts."""

from collections.abc import Callable

from stage import Stages

from producers.reports import read_report


def test_the_report_counts_what_redis_counts(
    stages: Stages, eventually: Callable[..., object]
) -> None:
    stage = stages(app={"rate_per_second": 400}, window=1)
    stage.form_ids(300, each=3, unknown=[f"f{user}x0" for user in range(20)])
    members = [f"o{user}".encode() for user in range(350)]
    stage.audiences.import_rows("shop", "vip", members)
    units = [stage.unit(), stage.unit()]
    everyone = stage.create(audience="vip")
    stage.wait(everyone)
    cut_short = stage.create(rate=40)
    eventually(lambda: stage.status(cut_short).settled >= 20, "some of it was sent")
    units[0].kill()
    stage.broadcasts.cancel(cut_short)
    told = {broadcast: stage.wait(broadcast) for broadcast in (everyone, cut_short)}

    def last_words() -> set[str]:
        return {line["broadcast"] for line in stage.lines("broadcast_counted")}

    eventually(lambda: last_words() == set(told), "the last words are logged")
    units[1].terminate()
    units[1].wait(15)

    report = read_report([str(log) for log in stage.logs])
    assert {one.id for one in report.broadcasts} == set(told)
    for one in report.broadcasts:
        status = told[one.id]
        assert (one.by_redis, one.state, one.total) == (True, status.state, status.total)
        assert one.outcomes == status.outcomes
        assert one.errcodes == {str(code): n for code, n in status.errcodes.items()}
    assert told[everyone].outcomes["no_permit"] == 50
    assert {"cancelled", "delivered"} <= set(told[cut_short].outcomes)
    assert report.unread == 0
