# shellcheck shell=bash
# What the scripts here need, and how it is had. Sourced; each function installs what is missing or says what to do.

fail() {
    echo "$*" >&2
    exit 1
}

# Installs Debian packages, as root or through sudo.
install_packages() {
    command -v apt-get >/dev/null || fail "Please install: $*"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "Please install as root: apt-get install $*"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qy --no-install-recommends "$@" >/dev/null
}

need_rust() {
    command -v cargo >/dev/null || fail "Rust is missing: install it with rustup, version 1.95 or newer"
}

need_compiler() {
    command -v cc >/dev/null || install_packages gcc libc6-dev
}

# The reference. One that is installed stays, whatever its version.
need_qemu_img() {
    command -v "${QEMU_IMG:-qemu-img}" >/dev/null && command -v "${QEMU_IO:-qemu-io}" >/dev/null ||
        install_packages qemu-utils
}

# Readers of images that have nothing to do with qemu-img: modules of Debian's own Python.
need_readers() {
    /usr/bin/python3 -c 'import pyqcow, pyvhdi, pyvmdk' 2>/dev/null ||
        install_packages python3 python3-libqcow python3-libvhdi python3-libvmdk
}

need_kvm() {
    [ -e /dev/kvm ] ||
        fail "There is no /dev/kvm: load kvm_intel or kvm_amd, and see that virtualization (or nesting) is on"
    [ -r /dev/kvm ] && [ -w /dev/kvm ] ||
        fail "/dev/kvm is closed to $(id -un): add the user to the group kvm and log in again"
}

# libFuzzer is C++.
need_cxx() {
    command -v c++ >/dev/null || install_packages g++
}

need_shellcheck() {
    command -v shellcheck >/dev/null || install_packages shellcheck
}

need_nightly() {
    cargo +nightly --version >/dev/null 2>&1 ||
        fail "The nightly toolchain is missing: rustup toolchain install nightly --profile minimal"
}

need_cargo_fuzz() {
    command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
}

need_cargo_deny() {
    command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
}
