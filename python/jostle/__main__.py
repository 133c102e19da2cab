"""The command line, as `jostle` and as `python -m jostle`."""

import sys


def main() -> None:
    """Runs it; exits with 1 for what went wrong, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        from jostle.cli import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit("error: the command line needs typer and rich; to install them: pip install typer rich")
    run()


if __name__ == "__main__":
    main()
