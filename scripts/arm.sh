#!/bin/sh
# An emulated 64-bit ARM device: a Cortex-A72 (Raspberry Pi 4) with Debian 12's Python 3.11.
#
#   scripts/arm.sh setup FOLDER             make it; about 400 MB, some minutes
#   scripts/arm.sh test FOLDER [ARGS...]    the test suite marked `arm`; ARGS go to pytest
#   scripts/arm.sh python FOLDER [ARGS...]  its Python, such as -m edgeml agent run --bundle B
#
# Needs x86-64 Linux with apt (Debian, Ubuntu), pip and Python 3.11 or later. It installs nothing on
# the machine and changes nothing outside FOLDER: QEMU, the C library and Python are unpacked there.
#
# How it works. FOLDER is a virtual environment of the ARM Python. FOLDER/bin/python is a script that
# runs it in QEMU's user mode with the device's root in front of this machine's: a file that is in
# FOLDER/root is the one that is found. A process that starts `sys.executable` starts that script
# again, so agent and workers are all emulated and no binfmt handler is needed. onnxruntime and XNNPACK
# crash on start unless /proc/cpuinfo is an ARM core's: one is mounted over it, where only the
# processes started here see it (a mount namespace; without root a user namespace as well).
#
# What it cannot show: speed, and memory (a resident set holds QEMU's translations as well).
set -eu

SUITE=bookworm
# The wheels that run on Debian 12: glibc up to 2.36.
PLATFORMS="manylinux_2_35 manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27
           manylinux_2_17 manylinux2014"
LIBRARIES="agent onnx tflite"
TOOLS="pytest pytest-xdist hypothesis psutil"

here=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "arm: $*" >&2; }

usage() { sed -n 's/^#   scripts/scripts/p' "$0" >&2; exit 2; }

# The emulated Python, with an ARM core's /proc/cpuinfo and this checkout, which need not be the one
# that FOLDER was made with.
on_arm() {
    echo "$here" >"$root/lib/python3.11/site-packages/edgeml.pth"
    private="--mount"
    [ "$(id -u)" = 0 ] || private="--mount --user --map-root-user"
    # shellcheck disable=SC2086,SC2016 # words, and a script of its own, on purpose
    unshare $private sh -c 'mount --bind "$0/cpuinfo" /proc/cpuinfo && exec "$0/bin/python" "$@"' \
        "$root" "$@"
}

# apt with lists, cache and installed packages of its own; $1 is the architecture.
private_apt() {
    arch=$1; shift
    mkdir -p "$root/apt/none" "$root/apt/$arch/lists/partial" "$root/apt/$arch/archives/partial"
    : >"$root/apt/$arch/status"
    apt-get -qq -o APT::Architecture="$arch" -o APT::Architectures::="$arch" \
        -o Dir::State="$root/apt/$arch" -o Dir::State::status="$root/apt/$arch/status" \
        -o Dir::Cache="$root/apt/$arch" -o Dir::Etc::sourcelist="$root/apt/sources" \
        -o Dir::Etc::sourceparts="$root/apt/none" -o APT::Sandbox::User="$(id -un)" \
        -o Dir::Etc::preferencesparts="$root/apt/none" "$@"
}

# unpack ARCH FOLDER PACKAGE...: with all that they depend on.
unpack() {
    arch=$1; into=$2; shift 2
    private_apt "$arch" update
    private_apt "$arch" --yes --no-install-recommends --download-only install "$@"
    for package in "$root/apt/$arch"/archives/*.deb; do
        dpkg-deb --extract "$package" "$into"
    done
}

setup() {
    for program in apt-get dpkg-deb python3; do
        command -v $program >/dev/null || { say "there is no $program here"; exit 1; }
    done
    mkdir -p "$root/apt" "$root/bin" "$root/lib/python3.11/site-packages"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e $keys ] || { say "install debian-archive-keyring: Debian's signatures are checked"; exit 1; }
    mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
    echo "deb [signed-by=$keys] $mirror $SUITE main" >"$root/apt/sources"
    say "unpacking QEMU and Debian's Python for ARM"
    unpack arm64 "$root/root" python3.11 libstdc++6 libgomp1
    private_apt amd64 update
    (cd "$root/apt" && private_apt amd64 download qemu-user-static)
    dpkg-deb --extract "$root"/apt/qemu-user-static_*.deb "$root/apt/qemu"
    mv "$root/apt/qemu/usr/bin/qemu-aarch64-static" "$root/bin/"
    rm -r "$root/apt"

    cat >"$root/cpuinfo" <<END
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

END
    cat >"$root/bin/python" <<END
#!/bin/sh
exec "$root/bin/qemu-aarch64-static" -cpu cortex-a72 -L "$root/root" \\
    -0 "$root/bin/python" "$root/root/usr/bin/python3.11" "\$@"
END
    chmod +x "$root/bin/python"
    printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$root/pyvenv.cfg"

    say "installing wheels for ARM"
    site=$root/lib/python3.11/site-packages
    platforms=$(for name in $PLATFORMS; do echo "--platform ${name}_aarch64"; done)
    extras=$(echo $LIBRARIES | tr ' ' ,)
    # pip cannot install a checkout for another platform: its requirements, and a path to it.
    wanted=$(cd "$here" && python3 .ci/requirements.py "$extras")
    # shellcheck disable=SC2086 # words, on purpose
    python3 -m pip install --quiet --no-warn-conflicts --root-user-action ignore --upgrade \
        --target "$site" $platforms --python-version 3.11 --implementation cp \
        --only-binary=:all: --constraint "$here/edgeml/toolchain/constraints/light.txt" \
        $wanted $TOOLS
    on_arm -c "import platform, numpy, onnxruntime, ai_edge_litert.interpreter
print('arm: Python', platform.python_version(), 'on', platform.machine(), 'with numpy', numpy.__version__)" >&2
}

[ $# -ge 2 ] || usage
verb=$1
mkdir -p "$2"
root=$(cd "$2" && pwd)
shift 2
case $verb in
    setup) setup ;;
    python) on_arm "$@" ;;
    test)
        cd "$here"
        # Emulated, an agent with ONNX Runtime takes half a minute to start, and what a property costs
        # with a hundred examples is minutes: x86-64 has those.
        EDGEML_TEST_PATIENCE_S=600 EDGEML_TEST_EXAMPLES=${EDGEML_TEST_EXAMPLES:-10} on_arm -m pytest -p no:cacheprovider -m arm "$@"
        ;;
    *) usage ;;
esac
