"""python -m dynabert_jax COMMAND, which is dynabert COMMAND."""

import sys

from dynabert_jax.cli.menu import answered
from dynabert_jax.cli.start import start


def main() -> int:
    code = answered(sys.argv[1:])
    return start("dynabert_jax.cli.commands") if code is None else code


if __name__ == "__main__":
    sys.exit(main())
