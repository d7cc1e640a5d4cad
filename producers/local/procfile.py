"""The Procfile: which commands this system consists of, read with honcho's parser.

It lies at the root of a checkout, and beside this module in an installed package.
"""

from pathlib import Path

from producers.errors import SettingsError


def find() -> Path:
    """Return the path of this system's own Procfile.

    Raises:
        SettingsError: there is none: the installation is incomplete.
    """
    here = Path(__file__)
    for path in (here.with_name("Procfile"), here.parents[2] / "Procfile"):
        if path.is_file():
            return path
    raise SettingsError(f"no Procfile beside {here.parent}: install wxbroadcast again")


def read(path: Path | None = None) -> dict[str, str]:
    """Return the commands of a Procfile by name, in its order.

    Args:
        path: the file; None is this system's own.

    Raises:
        SettingsError: it cannot be read, holds no command, or names one twice; or honcho is
            not installed.
    """
    try:
        from honcho.environ import parse_procfile  # noqa: PLC0415 - of the extra `local`
    except ImportError as error:
        raise SettingsError("honcho is missing: pip install 'wxbroadcast[local]'") from error
    path = path or find()
    try:
        commands = dict(parse_procfile(path.read_text(encoding="utf-8")).processes)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text") from error
    except AssertionError as error:  # honcho's way of saying so
        raise SettingsError(f"{path}: a name stands there twice") from error
    if not commands:
        raise SettingsError(f"{path} holds no line of the form `name: command`")
    return commands
