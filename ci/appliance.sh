#!/usr/bin/env bash
# Boots the unikernel through its other door: QEMU loads the ELF by the PVH protocol on a machine that is not instar's,
# without KVM, and the guest has to find its devices and answer a command. Needs no qemu-system on the machine:
# installing Debian's would replace a newer qemu-img, so it is unpacked under target/.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/setup.sh
. ci/setup.sh

need_rust
need_compiler
aside=$PWD/target/qemu-system
# Where vmm/build.rs builds it.
embedded=$(realpath -m "${CARGO_TARGET_DIR:-target}")/embedded

unpack_qemu() {
    rm -rf "$aside"
    mkdir -p "$aside"/{state/lists/partial,cache/archives/partial,root}
    touch "$aside/status"
    local apt=(apt-get -q -o Dir::State::status="$aside/status" -o Dir::State="$aside/state"
        -o Dir::Cache="$aside/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
    "${apt[@]}" update >/dev/null
    "${apt[@]}" -y --download-only --no-install-recommends install qemu-system-x86 >/dev/null
    for package in "$aside"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$aside/root"
    done
    rm -rf "$aside/cache" "$aside/state"
}

if command -v qemu-system-x86_64 >/dev/null; then
    qemu=(qemu-system-x86_64)
else
    [ -e "$aside/root/usr/bin/qemu-system-x86_64" ] || unpack_qemu
    library=$aside/root/lib/x86_64-linux-gnu
    libraries=$(find "$aside/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
    export QEMU_MODULE_DIR=$aside/root/usr/lib/x86_64-linux-gnu/qemu
    qemu=("$library/ld-linux-x86-64.so.2" --library-path "$libraries" "$aside/root/usr/bin/qemu-system-x86_64"
        -L "$aside/root/usr/share/qemu" -L "$aside/root/usr/share/seabios")
fi

cargo build --locked --package unikernel --features guest --bins --profile guest --target-dir "$embedded"

# A number as little-endian bytes: VALUE LENGTH.
little_endian() {
    local value=$1 index
    for ((index = 0; index < $2; index++)); do
        printf "\\x$(printf %02x $((value >> 8 * index & 255)))"
    done
}

# Header and payload of a command, as docs/protocol.md has them: REQUEST_ID PAYLOAD.
command_bytes() {
    printf NSTR
    little_endian 1 2
    little_endian 1 2
    little_endian 0 4
    little_endian ${#2} 4
    little_endian "$1" 8
    printf %s "$2"
}

# Runs a command in QEMU until the answer is there; prints it.
answer() {
    local directory
    directory=$(mktemp -d)
    command_bytes 42 "$1" >"$directory/command"
    shift
    (
        cat "$directory/command"
        # QEMU goes when its input ends.
        for _ in $(seq 300); do
            [ -s "$directory/answer" ] && break
            sleep 0.1
        done
    ) | timeout 60 "${qemu[@]}" -nodefaults -no-user-config -display none -no-reboot -m 256 \
        -M microvm,accel=tcg,acpi=off,pit=off,pic=off,rtc=off,auto-kernel-cmdline=on \
        -kernel "$embedded/guest/unikernel" -global virtio-mmio.force-legacy=false \
        -device virtio-serial-device,max_ports=1 -chardev stdio,id=console,signal=off \
        -device virtconsole,chardev=console "$@" >"$directory/answer" &
    local running=$!
    for _ in $(seq 300); do
        [ -s "$directory/answer" ] && break
        sleep 0.1
    done
    kill "$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
    cat "$directory/answer"
    rm -rf "$directory"
}

expect() {
    [ "$1" = "$2" ] || fail "the guest said: $1
instead of:     $2"
    echo "ok: $3"
}

request='{"profile":"11.1","target_format":"qcow2","options":null,"secrets":[],"subject":'
said=$(answer "$request"'{"size":1099511627776}}')
expect "$said" '{"record":"result","request_id":42,"answer":{"measure":{"required":168034304,"fully-allocated":1099679662080}}}' \
    'a size, measured behind the PVH door'

disk=$(mktemp)
trap 'rm -f "$disk"' EXIT
truncate -s 1M "$disk"
said=$(answer "$request"'{"image":{"source":{"file":{"disk":"source","length":1048576,"allocated":1048576,"extents":{"inline":[[0,65536]]}},"format":"raw"},"snapshot":null}}}' \
    -drive "if=none,id=disk,format=raw,readonly=on,file=$disk" -device virtio-blk-device,drive=disk,serial=source)
expect "$said" '{"record":"result","request_id":42,"answer":{"measure":{"required":393216,"fully-allocated":1376256}}}' \
    'a disk, found by its serial and measured'
