"""``python -m producers.cli``: the command line, where its script is not on the PATH."""

from producers.cli import main

main()
