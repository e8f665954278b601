"""Trains a DynaBERT; the same as `dynabert train`:

    python train.py configs/movie_reviews_quick.py

The run itself, in order and on one page, is dynabert_jax/train/run.py.
"""

import signal
import sys

if __name__ == "__main__":
    # While modules are imported there is nothing to save: Ctrl-C ends at once, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from dynabert_jax.cli.start import start

if __name__ == "__main__":
    sys.exit(start("dynabert_jax.cli.train"))
