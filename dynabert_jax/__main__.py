"""python -m dynabert_jax COMMAND, which is dynabert COMMAND."""

import sys

from dynabert_jax.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
