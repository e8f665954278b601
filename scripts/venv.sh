#!/usr/bin/env bash
# Creates or updates the virtual environment:
#
#     bash scripts/venv.sh                     with everything that tests and checks need
#     bash scripts/venv.sh requirements.txt    with only what running needs
#
# It is in .venv. VENV=FOLDER puts it elsewhere, and PYTHON=python3.12 uses another Python. A second call is fast: it
# installs only if the project's requirements have changed.
# The other scripts source this one. It sets $root, and puts the environment's programs first in PATH.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
python=${PYTHON:-python3}
requirements=${1:-requirements-dev.txt}

fail() {
    echo "$*" >&2
    exit 1
}

if [ ! -x "$venv/bin/pip" ]; then
    found=$("$python" -c 'import platform; print(platform.python_version())') ||
        fail "$python does not run. Install Python 3.11 or later, or name one: PYTHON=python3.12 bash $0"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is Python $found; 3.11 or later is needed. Install it, then name it: PYTHON=python3.12 bash $0"
    "$python" -c 'import ensurepip, venv' ||
        fail "$python cannot create virtual environments. On Debian and Ubuntu: apt-get install python3-venv"
    "$python" -m venv "$venv"
fi

# The stamp holds the checksum of the requirements that were last installed.
stamp=$venv/.$requirements.cksum
wanted=$(cat "$root"/requirements*.txt "$root/pyproject.toml" | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing $requirements into $venv; the first time, this takes a few minutes." >&2
    "$venv/bin/pip" install -qq --disable-pip-version-check --requirement "$root/$requirements" --editable "$root"
    echo "$wanted" > "$stamp"
fi

export PATH="$venv/bin:$PATH"
