#!/bin/sh
# A whole machine for the device agent: Debian 12 with its kernel, systemd and drivers, in QEMU.
#
#   scripts/machine.sh setup FOLDER          make it; about 2 GB, some minutes
#   scripts/machine.sh test FOLDER [ARGS...] the tests in tests/machine, run inside; ARGS go to pytest
#   scripts/machine.sh power FOLDER [CASES]  power cuts at CASES moments (60) of an agent's life;
#                                            AGAIN=1 cuts the last recorded life again
#   scripts/machine.sh container FOLDER      the container image, built, run by Buildah and by Podman; no QEMU
#   scripts/machine.sh shell FOLDER          a shell inside, on this terminal; Ctrl-A X ends it
#
# Needs x86-64 Debian or Ubuntu, and root: it installs QEMU and mmdebstrap with apt where they are
# missing, and changes nothing else outside FOLDER.
#
# How it works. FOLDER/root is the machine's tree, with edgeml in /opt/edgeml as a device would have
# it. Each run installs this checkout into it, makes a disk of it and boots that; nothing is kept of
# what happens inside. The console goes to FOLDER/console.log, what the tests say comes out by a
# second serial line, and so does their exit status. There is no network but loopback.
# `power` has an agent deploy, serve and report inside, on a second disk. QEMU logs every write and every
# flush of that disk. Then, outside, the disk is made again as a cut leaves it at each of CASES moments,
# with half of the sectors that were not flushed yet gone; Linux mounts it, an agent is started on it,
# and what it serves and what reaches the collector is compared with what had been promised by then.
# A machine that is not done after LIMIT_S seconds (1500) is ended from outside.
#
# KVM is used where a kernel comes up under it; elsewhere QEMU translates, slowly. The first line says
# which. So nothing here is a measure of speed.
set -eu

SUITE=bookworm
PACKAGES="systemd systemd-sysv systemd-oomd udev kmod dbus procps iproute2 linux-image-amd64 initramfs-tools
          python3 python3-venv alsa-utils v4l-utils mosquitto"
PLATFORMS="manylinux_2_35 manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27
           manylinux_2_17 manylinux2014"
EXTRAS="agent,onnx,tflite,camera"
TOOLS="pytest hypothesis psutil pillow"
LIMIT_S=${LIMIT_S:-1500}
CPUS=${CPUS:-2}

here=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "machine: $*" >&2; }

usage() { sed -n 's/^#   scripts/scripts/p' "$0" >&2; exit 2; }

inside() { chroot "$root/root" "$@"; }

setup() {
    "$here/.ci/packages.sh" qemu-system-x86 mmdebstrap e2fsprogs
    rm -rf "$root/root"
    say "unpacking Debian"
    # shellcheck disable=SC2086 # words, on purpose
    mmdebstrap --quiet --variant=minbase --include="$(echo $PACKAGES | tr ' ' ,)" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$SUITE" "$root/root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    # An initial RAM disk with what this disk needs, and not with all that Debian knows.
    echo MODULES=list >"$root/root/etc/initramfs-tools/conf.d/list"
    printf 'virtio_pci\nvirtio_blk\next4\n' >"$root/root/etc/initramfs-tools/modules"
    inside update-initramfs -u >/dev/null
    cp "$root"/root/boot/vmlinuz-* "$root/vmlinuz"
    cp "$root"/root/boot/initrd.img-* "$root/initrd"
    inside useradd --system --home-dir /var/lib/edgeml --groups video,audio edgeml
    echo device >"$root/root/etc/hostname"
    inside systemctl --quiet disable mosquitto systemd-oomd e2scrub_reap apt-daily.timer apt-daily-upgrade.timer
    say "installing edgeml's libraries"
    mkdir -p "$root/root/opt/wheels"
    platforms=$(for name in $PLATFORMS; do echo "--platform ${name}_x86_64"; done)
    wanted=$(cd "$here" && python3 .ci/requirements.py "$EXTRAS")
    # By this machine's pip, with its network and its settings; the machine inside has neither.
    # shellcheck disable=SC2086 # words, on purpose
    python3 -m pip download --quiet --dest "$root/root/opt/wheels" --only-binary=:all: $platforms \
        --python-version 3.11 --implementation cp \
        --constraint "$here/edgeml/toolchain/constraints/light.txt" $wanted $TOOLS
    inside python3 -m venv /opt/edgeml
    # shellcheck disable=SC2086
    pip_inside $wanted $TOOLS
    rm -r "$root/root/opt/wheels"
}

pip_inside() {
    inside /opt/edgeml/bin/pip install --quiet --no-index --find-links /opt/wheels \
        --no-warn-conflicts --root-user-action ignore "$@"
}

# copy TO PATH...: those of this checkout's files, without what was built there.
copy() {
    into=$1; shift
    rm -rf "$into"
    mkdir -p "$into"
    (cd "$here" && git ls-files -z --cached --others --exclude-standard "$@" \
        | tar --create --null --files-from=-) | tar --extract --no-same-owner --directory "$into"
}

# A disk of the tree, with this checkout installed; tests that run inside lie in /opt/suite.
disk() {
    [ -e "$root/root/opt/edgeml" ] || { say "there is no machine in $root: setup comes first"; exit 2; }
    copy "$root/checkout" .
    python3 -m pip wheel --quiet --no-deps --wheel-dir "$root/root/opt/wheels" "$root/checkout"
    pip_inside --no-deps --force-reinstall edgeml
    rm -r "$root/root/opt/wheels"
    cp -r "$here/scripts/machine/files/." "$root/root/"
    copy "$root/root/opt/suite" tests pyproject.toml
    printf '%s\n' "$@" >"$root/root/opt/suite/arguments"
    rm -f "$root/disk.img"
    mke2fs -q -t ext4 -L machine -E root_owner=0:0 -d "$root/root" "$root/disk.img" 4G >/dev/null
}

# Whether a kernel comes up under KVM. Without a disk it panics, which ends QEMU: that is the answer.
accelerator() {
    if [ -w /dev/kvm ] && timeout 10 qemu-system-x86_64 -machine q35,accel=kvm -cpu max -m 256 \
        -display none -no-reboot -kernel "$root/vmlinuz" -append panic=-1 >/dev/null 2>&1; then
        say "KVM"
        accel=kvm
    else
        say "no usable KVM here: QEMU translates, slowly"
        accel=tcg
    fi
}

# boot UNIT ARGS...: to that unit of systemd; ARGS go to QEMU.
boot() {
    unit=$1; shift
    timeout --foreground "$LIMIT_S" qemu-system-x86_64 -machine q35,accel=$accel -cpu max \
        -smp "$CPUS" -m 2G -display none -no-reboot -nodefaults -nic none -device virtio-rng-pci \
        -kernel "$root/vmlinuz" -initrd "$root/initrd" \
        -append "root=LABEL=machine rw console=ttyS0 quiet panic=-1 systemd.unit=$unit" \
        -drive "file=$root/disk.img,if=virtio,format=raw,snapshot=on" "$@"
}

# boot, with what it says on the second serial line shown and kept; ends with the status it tells.
boot_for_result() {
    accelerator
    say "booting; the console is in $root/console.log"
    target=$1; shift
    boot "$target" -serial "file:$root/console.log" -serial stdio "$@" </dev/null \
        | tee "$root/report.txt" || true
    result=$(sed -n 's/^machine: status \([0-9]*\).*/\1/p' "$root/report.txt")
    if [ -z "$result" ]; then
        say "it ended, or was ended after $LIMIT_S s, without a result; see $root/console.log"
        exit 1
    fi
    [ "$result" = 0 ] || exit "$result"
}

# In the machine's tree, at this machine's speed; what is mounted there is seen by nobody else.
outside() {
    unshare --mount --pid --fork sh -c '
        mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/run" &&
        mount -t tmpfs tmpfs "$0/tmp" && mkdir "$0/run/power" && mount --bind "$1" "$0/run/power" &&
        shift && exec chroot "$0" env PYTHONPATH=/opt/suite/tests /opt/edgeml/bin/python "$@"' \
        "$root/root" "$root/power" "$@"
}

power() {
    [ -n "${AGAIN:-}" ] || record_power
    say "cutting"
    outside -m machine.power_check /run/power/first.img /run/power/writes.log \
        --cases "$@"
}

record_power() {
    disk
    rm -rf "$root/power"
    mkdir -p "$root/power/files"
    outside -m machine.power_workload prepare /run/power/files
    # The file system ends at 96 MB; behind it the workload keeps its notes.
    mke2fs -q -t ext4 -L power -d "$root/power/files" "$root/power/first.img" 96M >/dev/null
    truncate --size 128M "$root/power/first.img"
    cp "$root/power/first.img" "$root/power/disk.img"
    : >"$root/power/writes.log"
    boot_for_result power.target \
        -blockdev "driver=file,node-name=disk,filename=$root/power/disk.img" \
        -blockdev "driver=file,node-name=log,filename=$root/power/writes.log" \
        -blockdev driver=blklogwrites,node-name=logged,file=disk,log=log \
        -device virtio-blk-pci,drive=logged
}

in_store() { buildah --root "$root/images" --runroot "$root/images-run" --storage-driver vfs "$@"; }

# Build device_agent/Containerfile as it stands, on a base image made here from Debian's packages under
# the name that it asks for: no registry is needed. It runs without a control group of its own, as
# buildah can where it is itself in a container.
container() {
    "$here/.ci/packages.sh" buildah podman mmdebstrap util-linux
    copy "$root/checkout" .
    mkdir -p "$root/container/bundles"
    if ! in_store inspect --type image "docker.io/library/python:3.11-slim" >/dev/null 2>&1; then
        mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,ca-certificates \
            --customize-hook='ln -s python3 "$1/usr/bin/python"' \
            --customize-hook='rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
            "$SUITE" "$root/container/base.tar" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
        base=$(in_store from scratch)
        in_store add --quiet "$base" "$root/container/base.tar" / >/dev/null
        in_store commit --quiet --rm "$base" "docker.io/library/python:3.11-slim" >/dev/null
        rm "$root/container/base.tar"
    fi
    say "building"
    in_store build --quiet --format docker --isolation chroot --file "$root/checkout/device_agent/Containerfile" \
        --build-arg PYTHON=3.11 --build-arg RUNTIMES=tflite --volume /etc/ssl/certs:/etc/ssl/certs:ro \
        --env "PIP_CERT=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}" --tag edgeml-agent "$root/checkout"
    say "running"
    in_store inspect --type image edgeml-agent | python3 "$here/scripts/machine/container.py" \
        "$root" "$here"
    say "running under Podman"
    # crun takes version 1 of control groups or version 2, and not one beside the other.
    unshare --mount sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec python3 "$@"' sh \
        "$here/scripts/machine/under_podman.py" "$root" "$here"
}

[ $# -ge 2 ] || usage
[ "$(id -u)" = 0 ] || { say "needs root, to make a disk that belongs to root"; exit 2; }
verb=$1
mkdir -p "$2"
root=$(cd "$2" && pwd)
shift 2
case $verb in
    setup) setup ;;
    test)
        [ $# -gt 0 ] || set -- tests/machine
        disk "$@"
        boot_for_result suite.target
        ;;
    power) power "${1:-60}" ;;
    container) container ;;
    shell)
        disk
        accelerator
        boot multi-user.target -serial mon:stdio
        ;;
    *) usage ;;
esac
