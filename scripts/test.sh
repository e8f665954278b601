#!/usr/bin/env bash
# Runs all tests except the slow ones, after setting up what is missing. Arguments go to pytest, and the last -m counts:
#
#     bash scripts/test.sh -m slow
#     bash scripts/test.sh -m parity                           golden values of the authors' code, and nothing else
#     DYNABERT_GOLDEN=FOLDER bash scripts/test.sh -m parity    other golden values; see tests/golden/README.md
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements-dev.txt
cd "$root"
exec pytest -m "not slow" --numprocesses auto --dist loadfile "$@"
