"""``wxbroadcast templates``: what an app may send, as WeChat lists it."""

from typing import Annotated

import typer

from producers.cli.options import App, AsJson
from producers.cli.session import opened, print_json, print_table, say, table

_KINDS = {"one_off": "one-off", "long_term": "long-term"}


def templates(
    app: App,
    channel: Annotated[
        str, typer.Option(metavar="subscribe|template", help="Of which WeChat API.")
    ] = "subscribe",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Have a worker read them from WeChat anew.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List an app's own templates: their fields, the values that these may have, and their kind.

    They were read from WeChat by a worker, when somebody needed them last.
    """
    with opened(as_json=as_json) as session:
        from producers.templates import Templates

        found = Templates(session.client, session.settings).show(app, channel, refresh=refresh)
        if found.trouble:
            say(f"not read from WeChat anew: {found.trouble}")
        if as_json:
            print_json(found.as_dict())
            return
        rows = table("template_id", "title", "kind", "fields")
        for one in found.templates.values():
            fields = [
                f"{field.key} {field.label}"
                + (f": {' | '.join(field.values)}" if field.values else "")
                + (f", as {field.example}" if field.example else "")
                for field in one.fields
            ]
            kind = _KINDS.get(one.kind, "")
            rows.add_row(one.template_id, one.title, kind, "\n".join(fields) or "any")
        print_table(rows)
        if not found.read_at_ms:
            say("nothing is known of them: nothing is refused for its template")
            return
        more = "" if found.is_whole else "; there are more, or others, so none is called unknown"
        count, age_s = len(found.templates), found.age_ms // 1000
        say(f"{count:,} {channel} templates of {app}, read {age_s:,} s ago{more}")
