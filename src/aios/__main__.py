"""`python -m aios`: the command, where it is not in the PATH."""

import sys

from aios.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
