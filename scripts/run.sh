#!/usr/bin/env bash
# Trains what a configuration describes, after setting up what is missing; arguments go to train.py:
#
#     bash scripts/run.sh configs/movie_reviews_quick.py
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements.txt
exec python "$root/train.py" "$@"
