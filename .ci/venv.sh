#!/bin/sh
# Makes a virtual environment with the first Python from 3.11 to 3.13 that is found.
#   .ci/venv.sh FOLDER            ($PYTHON, if set, is the only one that is tried)
# The converters have no wheels for other versions.
set -eu
folder=$1

usable() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

say() { echo "$*" >&2; }

python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "No Python from 3.11 to 3.13 was found (looked for: ${PYTHON:-python3 python3.13 python3.12 python3.11})."
    say "On Debian 12 and later, and Ubuntu 24.04: apt-get install python3 python3-venv."
    say "Elsewhere install one and name it: make PYTHON=/path/to/python3.12 ..."
    exit 1
fi

# An environment of another Python cannot be mended.
if [ -x "$folder/bin/python" ] && ! usable "$folder/bin/python"; then
    rm -rf "$folder"
fi
if [ -x "$folder/bin/python" ] && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say "Python $version cannot make virtual environments: Debian and Ubuntu pack that apart."
    here=$(dirname "$0")
    "$here/packages.sh" "python$version-venv"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        say "Install it and try again: apt-get install python$version-venv"
        exit 1
    fi
fi
say "Making $folder with $("$python" --version) ($(command -v "$python"))."
rm -rf "$folder"
"$python" -m venv "$folder"
