#!/usr/bin/env bash
# Checks format, lint, types, and which module may import which, after setting up what is missing.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements-dev.txt
cd "$root"
ruff format --check
ruff check
mypy
lint-imports --no-logo
