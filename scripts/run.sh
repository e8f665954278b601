#!/usr/bin/env bash
# Trains a configuration, after setting up what is missing. Arguments go to train.py:
#
#     bash scripts/run.sh configs/movie_reviews_quick.py
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements.txt

# Use large memory pages: on a Linux CPU, training steps take three quarters of the time (docs/measurements.md).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec python "$root/train.py" "$@"
