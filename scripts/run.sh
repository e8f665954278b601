#!/usr/bin/env bash
# Trains what a configuration describes, after setting up what is missing; arguments go to train.py:
#
#     bash scripts/run.sh configs/movie_reviews_quick.py
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements.txt

# Memory in large pages: on a Linux CPU, training steps take three quarters of the time (docs/measurements.md).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec python "$root/train.py" "$@"
