#!/usr/bin/env bash
# Tests everything but the slow tests, after setting up what is missing. Arguments go to pytest, and the last -m counts:
#
#     bash scripts/test.sh -m slow
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements-dev.txt
cd "$root"
exec pytest -m "not slow" --numprocesses auto --dist loadfile "$@"
