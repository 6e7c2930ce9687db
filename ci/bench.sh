#!/usr/bin/env bash
# How fast instar is against qemu-img: whole processes, alternating runs, medians. Prints a Markdown table.
# Usage: ci/bench.sh [RUNS]     RUNS of what takes milliseconds, fewer of what takes longer
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/setup.sh
. ci/setup.sh

runs=${1:-101}
# Odd numbers, for what takes a second and for what takes half a minute.
some=$((runs / 10 | 1)) few=$((runs / 40 | 1))
need_rust
need_compiler
need_kvm
need_qemu_img
qemu_img=${QEMU_IMG:-qemu-img}
cargo build --release --locked --package instar --bins --examples

directory=$(mktemp -d)
# What is written goes to memory: it is the programs that are timed, and not a disk.
memory=$(mktemp -d -p /dev/shm)
# What goes around the page cache goes to a disk all the same.
disk=$(mktemp -d -p target)
trap 'rm -rf "$directory" "$memory" "$disk"' EXIT
small=$directory/small.qcow2 large=$directory/large.qcow2
"$qemu_img" create -q -f qcow2 "$small" 1G
"${QEMU_IO:-qemu-io}" -c 'write -q 0 5M' -c 'write -q 700M 300k' "$small"
target/release/examples/fragmented "$large"

# Half of 4 GiB is data: programs of this machine, in pieces of 1 MiB.
half=$memory/half.raw
target/release/examples/half_full "$half"
copy=$memory/copy.raw
cp --sparse=always "$half" "$copy"
"$qemu_img" convert -f raw -O qcow2 "$half" "$memory/half.qcow2"

# NAME RUNS ARGUMENT...: the same arguments for both.
row() {
    local name=$1 runs=$2
    shift 2
    target/release/examples/ratio "$name" "$runs" target/release/instar "$@" -- "$qemu_img" "$@"
}

echo "| $("$qemu_img" --version | head -1) | instar | qemu-img | ratio | memory, instar | qemu-img |"
echo '|---|---|---|---|---|---|'
row '`info` of a small qcow2' "$runs" info "$small"
row '`measure --size 1T -O qcow2`' "$runs" measure --size 1T -O qcow2
row '`measure -O qcow2` of a small qcow2' "$runs" measure -O qcow2 "$small"
row '`map --output json` of a fragmented 1 TiB qcow2 with 16 Mi clusters' "$few" map --output json "$large"
row '`measure -O qcow2` of a fragmented 1 TiB qcow2 with 16 Mi clusters' "$few" measure -O qcow2 "$large"
row '`check` of a fragmented 1 TiB qcow2 with 16 Mi clusters' "$some" check "$large"
rm -f "$large"

# As row, for commands that make the file $out.
made() {
    local name=$1 runs=$2
    shift 2
    target/release/examples/ratio --new "$out" "$name" "$runs" target/release/instar "$@" "$out" -- "$qemu_img" "$@" "$out"
    rm -f "$out"
}
out=$memory/out
made '`convert` of 4 GiB, half of it data, raw to qcow2' "$some" convert -f raw -O qcow2 "$half"
made '`convert` of 4 GiB, half of it data, qcow2 to raw' "$some" convert -f qcow2 -O raw "$memory/half.qcow2"
made '`convert -c` of the same, zstd' "$few" convert -f raw -O qcow2 -c -o compression_type=zstd "$half"
made '`convert -c` of the same, zlib' 1 convert -f raw -O qcow2 -c "$half"
row '`compare` of two such images' "$some" compare -f raw -F raw "$half" "$copy"
rm -f "$copy"
for method in zstd zlib; do
    target/release/instar convert -f raw -O qcow2 -c -o "compression_type=$method" "$half" "$memory/$method.qcow2"
    made "\`convert\` of the same, compressed with $method, to raw" "$few" convert -f qcow2 -O raw "$memory/$method.qcow2"
done
row '`compare` of the two' "$few" compare -f qcow2 -F qcow2 "$memory/zstd.qcow2" "$memory/zlib.qcow2"
rm -f "$memory/zstd.qcow2" "$memory/zlib.qcow2"
mv "$half" "$memory/half.qcow2" "$disk"
sync "$disk"/*
out=$disk/out
made '`convert -t none -T none`, disk to disk, raw to qcow2' "$some" convert -t none -T none -f raw -O qcow2 "$disk/half.raw"
made '`convert -t none -T none`, disk to disk, qcow2 to raw' "$some" convert -t none -T none -f qcow2 -O raw "$disk/half.qcow2"
