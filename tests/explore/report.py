"""Reports: a table of what was looked at, and a violation as a test that can be run."""

from collections.abc import Iterable

from .defects import DEFECTS
from .search import Found, Violation


def table(found: Iterable[Found]) -> str:
    """Return a table in Markdown, a world a line."""
    lines = [
        "| world | states | transitions | depth | all of it | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{one.world}` | {one.states:,} | {one.transitions:,} | {one.depth} |"
        f" {'yes' if one.ended else 'no'} | {one.seconds:,.0f} |"
        for one in found
    ]
    return "\n".join(lines)


def defects(found: Iterable[tuple[str, Found]]) -> str:
    """Return a table in Markdown of known defects, each with the shortest path to it."""
    lines = ["| defect | what went wrong | world | steps | seconds |", "|---|---|---|---|---|"]
    for name, one in found:
        steps = f"{len(one.violation.path)}" if one.violation else "not found"
        lines.append(
            f"| `{name}` | {DEFECTS[name].about} | `{one.world}` | {steps} | {one.seconds:,.0f} |"
        )
    return "\n".join(lines)


def as_test(violation: Violation, defect: str = "") -> str:
    """Return a violation as the text of a test; ``--replay FILE`` runs it too."""
    steps = "\n".join(f"            {label!r}," for label in violation.path)
    more = f"\n        defect={defect!r}," if defect else ""
    return f'''"""{violation.name}: {violation.what[:300]}"""

from explore.replay import replay


def test_path() -> None:
    replay(
        {violation.world!r},
        [
{steps}
        ],{more}
    )
'''
