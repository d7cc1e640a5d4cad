"""The pages of the released mini-program."""

from producers.sandbox.replies import RefusalError


def check_page(pages: frozenset[str] | None, page: object) -> None:
    """Check that a message's page exists; none is fine, and so is a query.

    Whether WeChat takes a leading slash is not documented; it is taken here.

    Raises:
        RefusalError: 41030.
    """
    if page is None or page == "":
        return
    if not isinstance(page, str):
        raise RefusalError(41030)
    if pages is None:
        return
    name = page.partition("?")[0].lstrip("/")
    if name not in pages and f"/{name}" not in pages:
        raise RefusalError(41030)
