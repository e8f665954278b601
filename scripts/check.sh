#!/usr/bin/env bash
# Checks format, lint, types and imports between modules, after setting up what is missing.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements-dev.txt
cd "$root"
ruff format --check
ruff check
mypy
lint-imports --no-logo
