#!/bin/sh
# The agent on every Python that devices have: 3.10 (JetPack 6), 3.11 (Debian 12), 3.12 (JetPack 7)
# and 3.13 (Debian 13).
#
#   scripts/pythons.sh FOLDER [ARGS...]     an environment for each in FOLDER, then the device's tests
#                                           in each; ARGS go to pytest
#
# Takes pyenv's Pythons and those on the path; one that is missing is a failure.
# PYTHONS="3.10 3.13" chooses.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 1 ] || { sed -n 's/^#   scripts/scripts/p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
cd "$here"

EXTRAS=agent,camera,onnx,tflite,openvino
TOOLS="pytest pytest-xdist hypothesis psutil scipy scikit-learn tritonclient[http] amqtt"
TESTS="tests/bundle tests/statistics tests/telemetry tests/device_agent
       tests/cli/test_bundle_verbs.py tests/cli/test_frame.py"
SUMMARY="$folder/summary.txt"
: >"$SUMMARY"

find_python() {
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python "$(command -v "python$1")"; do
        [ -x "$candidate" ] && { echo "$candidate"; return; }
    done
    return 1
}

failed=0
for version in ${PYTHONS:-3.10 3.11 3.12 3.13}; do
    if ! python=$(find_python "$version"); then
        echo "$version: no such Python here" | tee -a "$SUMMARY" >&2
        failed=1
        continue
    fi
    [ -x "$folder/$version/bin/python" ] || "$python" -m venv "$folder/$version"
    # The pins hold for 3.11 and later; NumPy and ONNX Runtime have left 3.10 behind.
    pins="--constraint edgeml/toolchain/constraints/light.txt"
    [ "$version" = 3.10 ] && pins=
    # shellcheck disable=SC2086 # words, on purpose
    "$folder/$version/bin/python" -m pip install --quiet $pins --editable ".[$EXTRAS]" $TOOLS
    echo "== $("$folder/$version/bin/python" --version)"
    status=0
    # shellcheck disable=SC2086 # words, on purpose
    "$folder/$version/bin/python" -m pytest -q -p no:cacheprovider "$@" $TESTS \
        >"$folder/$version.log" 2>&1 || status=$?
    echo "$version: $(tail -n 1 "$folder/$version.log")" | tee -a "$SUMMARY"
    [ $status = 0 ] || { failed=1; grep -E '^(FAILED|ERROR)' "$folder/$version.log" || true; }
done
exit $failed
