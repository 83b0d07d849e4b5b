"""``python -m lowerbound`` and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from lowerbound.cli import run_command_line
    from lowerbound.launch import end_with_parent

    end_with_parent()
    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
