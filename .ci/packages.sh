#!/bin/sh
# Installs Debian packages that are missing, where that is possible: with apt, as root or by a sudo
# that asks for nothing. Elsewhere it says what is missing and goes on: the tests that need a package
# are skipped, or fail with CI=true.
#   .ci/packages.sh PACKAGE...
set -eu

missing=""
for package in "$@"; do
    if command -v dpkg-query >/dev/null 2>&1; then
        state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
        [ "$state" = "install ok installed" ] && continue
    fi
    # The same program from elsewhere will do.
    case $package in
        chromium-driver) program=chromedriver ;;
        *) program=$package ;;
    esac
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null 2>&1 && continue
    missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing, and there is no apt-get here to install it:$missing" >&2
    exit 0
elif [ "$(id -u)" = 0 ]; then
    as_root="env"
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    echo "Missing, and this user may not install it:$missing" >&2
    echo "As root: apt-get install$missing" >&2
    exit 0
fi

echo "Installing system packages:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt="$as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
# shellcheck disable=SC2086 # words, on purpose
if ! { $apt update && $apt install --yes --no-install-recommends $missing; } >"$log" 2>&1; then
    echo "apt-get could not install$missing; its last words:" >&2
    tail -n 5 "$log" >&2
fi
