"""python -m dynabert_jax COMMAND, which is dynabert COMMAND."""

import sys

from dynabert_jax.cli.start import start


def main() -> int:
    return start("dynabert_jax.cli.commands")


if __name__ == "__main__":
    sys.exit(main())
