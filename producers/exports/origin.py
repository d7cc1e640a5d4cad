"""The origin: which deployment an export is of, by a name that it has drawn once."""

from producers.store import Client, keys
from producers.store.retry import repeat
from producers.store.scripts import new_token


def origin_of(client: Client) -> str:
    """Return the name of the deployment.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    found = repeat("reading the deployment", lambda: client.hget(keys.DEPLOYMENT, "origin"))
    if not found:
        drawn = new_token()
        repeat("naming the deployment", lambda: client.hsetnx(keys.DEPLOYMENT, "origin", drawn))
        found = repeat("reading the deployment", lambda: client.hget(keys.DEPLOYMENT, "origin"))
    return str(found)
