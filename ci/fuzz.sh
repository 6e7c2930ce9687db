#!/usr/bin/env bash
# Fuzzes every target of ci/fuzz for some seconds, beginning with seeds made here; what is found is kept in
# ci/fuzz/corpus, and an input that breaks a promise in ci/fuzz/artifacts.
# Usage: ci/fuzz.sh [SECONDS [TARGET...]]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/setup.sh
. ci/setup.sh

seconds=${1:-60}
shift || true
need_rust
need_compiler
need_cxx
need_qemu_img
need_nightly
need_cargo_fuzz
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz

corpus=$PWD/ci/fuzz/corpus
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Makes a seed: TARGET NAME, the bytes on standard input.
seed() {
    mkdir -p "$corpus/$1"
    cat >"$corpus/$1/seed-$2"
}

# Makes a small qcow2 image a seed: NAME OPTIONS SIZE COMMAND...
image_seed() {
    local name=$1 options=$2 size=$3 command
    shift 3
    "${QEMU_IMG:-qemu-img}" create -q -f qcow2 -o "$options" "$logs/image" "$size"
    for command in "$@"; do
        "${QEMU_IO:-qemu-io}" -d unmap -c "$command" "$logs/image" >/dev/null
    done
    # Behind the file stand the lies of storage.rs: disk space and holes.
    printf 'aaaaaaaahhhhhhhh' | cat "$logs/image" - | seed map_qcow2 "$name"
    seed check_qcow2 "$name" <"$logs/image"
    # Behind the file stands what is written to it, and how long that is.
    printf 'd\0\7a\100\3b\1\1d\200\17a\0\0\17' | cat "$logs/image" - | seed write_qcow2 "$name"
    rm "$logs/image"
}

image_seed small cluster_size=512 64k 'write 0 4k' 'write -z 8k 2k' 'discard 1k 1k'
image_seed old cluster_size=512,compat=0.10 100k 'write 9k 3k'
image_seed wide cluster_size=1k,refcount_bits=64 40k 'write 9k 3k'
image_seed narrow cluster_size=512,refcount_bits=1 40k 'write 9k 3k'
image_seed zlib cluster_size=512 40k 'write -c 0 8k'
image_seed zstd cluster_size=512,compression_type=zstd 40k 'write -c 0 8k'
image_seed preallocated cluster_size=512,preallocation=metadata 16k 'write 1k 1k'
image_seed lazy cluster_size=512,lazy_refcounts=on 16k 'write 1k 1k'
image_seed subclusters cluster_size=16k,extended_l2=on 1M 'write 512 1k' 'write -z 40k 4k'
image_seed backing cluster_size=512,backing_file=base,backing_fmt=raw 16k 2>/dev/null || true
"${QEMU_IMG:-qemu-img}" create -q -f qcow2 -o cluster_size=512 "$logs/image" 64k
"${QEMU_IMG:-qemu-img}" snapshot -c one "$logs/image"
"${QEMU_IMG:-qemu-img}" bitmap --add -g 512 "$logs/image" two
printf 'aaaaaaaahhhhhhhh' | cat "$logs/image" - | seed map_qcow2 snapshot-and-bitmap
seed check_qcow2 snapshot-and-bitmap <"$logs/image"
printf 'd\0\7a\100\3b\1\1d\200\17a\0\0\17' | cat "$logs/image" - | seed write_qcow2 snapshot-and-bitmap

# A number in so many bytes, the highest first.
be() {
    # shellcheck disable=SC2059
    printf "$(printf "%0$(($1 * 2))x" "$2" | sed 's/../\\x&/g')"
}

# Images of other formats, and the files they name, for what that is worth: TARGET FORMAT NAME OPTIONS SIZE COMMAND...
other_seed() {
    local target=$1 format=$2 name=$3 options=$4 size=$5 command
    shift 5
    "${QEMU_IMG:-qemu-img}" create -q -f "$format" -o "$options" "$logs/image" "$size"
    for command in "$@"; do
        "${QEMU_IO:-qemu-io}" -f "$format" -c "$command" "$logs/image" >/dev/null
    done
    printf 'aaaaaaaahhhhhhhh' | cat "$logs/image" - | seed "$target" "$name"
    # The last byte says which format is checked.
    local formats=(vmdk vdi vhdx qed parallels vpc) number
    for number in "${!formats[@]}"; do
        if [ "${formats[number]}" = "$format" ]; then
            be 1 "$number" | cat "$logs/image" - | seed check_others "$format-$name"
        fi
    done
    # What is done to it when it is written to, and which format it is.
    local written=(vmdk vdi vhdx qed parallels vpc qcow)
    for number in "${!written[@]}"; do
        if [ "${written[number]}" = "$format" ]; then
            { printf 'abcdefgh\0\200\3ijkl\4\377\1mnopqr'; be 1 "$number"; } | cat "$logs/image" - |
                seed write_others "$format-$name"
        fi
    done
    rm -f "$logs"/image*
}

other_seed map_vpc vpc empty subformat=dynamic 1M
other_seed map_vpc vpc exact force_size=on 9M
other_seed map_vpc vpc fixed subformat=fixed,force_size=on 64k
other_seed map_vmdk vmdk empty subformat=monolithicSparse 64k
other_seed map_vmdk vmdk sparse zeroed_grain=on 1M 'write 0 512'
other_seed map_vmdk vmdk stream subformat=streamOptimized 1M
other_seed map_vmdk vmdk flat subformat=monolithicFlat 64k
other_seed map_vmdk vmdk split subformat=twoGbMaxExtentSparse 5G
other_seed map_vdi vdi vdi static=off 3M 'write 1M 1k'
other_seed map_qcow qcow qcow encryption=off 64k 'write 4k 1k'
other_seed map_qed qed qed cluster_size=4k,table_size=2 64k 'write 4k 1k'
other_seed map_parallels parallels parallels cluster_size=64k 256k 'write 64k 1k'
"${QEMU_IMG:-qemu-img}" create -q -f luks --object secret,id=key,data=key -o key-secret=key,iter-time=10 "$logs/image" 0
{
    head -c 1k "$logs/image"
    printf 'aaaaaaaahhhhhhhh'
} | seed map_luks header
# What qemu-img does not make: a disk of Bochs with one extent of 4 KiB, and a compressed loop device of one block of 64 KiB.
{
    printf 'Bochs Virtual HD Image\0\0\0\0\0\0\0\0\0\0'
    printf 'Redolog\0\0\0\0\0\0\0\0\0Growing\0\0\0\0\0\0\0\0\0'
    printf '\0\0\2\0\0\2\0\0\2\0\0\0\1\0\0\0\0\20\0\0\0\0\0\0\0\40\0\0\0\0\0\0'
    head -c 416 /dev/zero
    printf '\377\377\377\377\0\0\0\0\203'
    head -c 4607 /dev/zero
    printf 'aaaaaaaahhhhhhhh'
} | seed map_bochs growing
{
    head -c 128 /dev/zero
    printf '\0\1\0\0\0\0\0\1\0\0\0\0\0\0\0\230\0\0\0\0\0\0\0\330'
    head -c 64 /dev/zero
    printf 'aaaaaaaahhhhhhhh'
} | seed map_cloop one
# An Apple disk image of 16 KiB: a chunk of each kind, in a table that is a resource fork or a property list.
{
    printf mish
    be 4 1
    be 8 0
    be 8 32
    be 8 0
    head -c 172 /dev/zero
    # Type, first sector, number of sectors, offset and length.
    for chunk in '0 0 4 0 0' '1 4 2 0 1024' '2 6 2 0 0' '2147483653 8 8 0 90' '2147483654 16 8 90 90' '2147483655 24 8 180 90'; do
        read -r -a fields <<<"$chunk"
        be 4 "${fields[0]}"
        be 4 0
        for field in "${fields[@]:1}"; do be 8 "$field"; done
    done
} >"$logs/block"
length=$(stat -c %s "$logs/block")
{
    for number in 16 $((20 + length)) $((4 + length)) 0 "$length"; do be 4 "$number"; done
    cat "$logs/block"
} >"$logs/fork"
{
    printf '<plist><dict><key>blkx</key><array><dict><key>Data</key>\n<data>\n'
    base64 "$logs/block"
    printf '</data></dict></array></dict></plist>\n'
} >"$logs/list"
# Each with the place of its offset and length in the trailer.
for table in fork:40 list:216; do
    name=${table%:*} at=${table#*:}
    {
        head -c 1024 /dev/zero
        cat "$logs/$name"
        printf koly
        head -c $((at - 4)) /dev/zero
        be 8 1024
        be 8 "$(stat -c %s "$logs/$name")"
        head -c $((492 - at - 16)) /dev/zero
        be 8 32
        head -c 12 /dev/zero
        printf 'aaaaaaaahhhhhhhh'
    } | seed map_dmg "$name"
done
# A VHDX is megabytes of nothing: the target puts the places where something is back to where they were.
"${QEMU_IMG:-qemu-img}" create -q -f vhdx -o block_size=1M "$logs/image" 2M
for place in 0 64 128 192 256 1024 1028 1032 2048 3072 3136 4096; do
    dd if="$logs/image" bs=1k skip=$place count=4 status=none
done >"$logs/places"
seed map_vhdx empty <"$logs/places"
{ cat "$logs/places"; printf 'abcdefgh\0\200\3ijkl\4\377\1mnopqr\2'; } | seed write_others vhdx-empty

printf 'some dataaaaaaaaahhhhhhhh' | seed map_raw plain
# One cluster of 4 KiB, as what the target reads.
{ printf '\0'; head -c 4096 /dev/zero | gzip -nc | tail -c +11; } | seed content deflate
printf '\1\50\265\57\375\0\20\3\200\0a' | seed content zstd
result='{"record":"result","request_id":1,"answer":{"measure":{"required":1,"fully-allocated":2}}}'
printf '%s\n\7' "$result" | seed records result
printf '{"record":"error","request_id":0,"error":{"kind":"io","message":"m"}}\n\7' | seed records error
request='{"profile":"11.1","target_format":"qcow2","options":"compat=1.1","secrets":["a"],"subject":{"size":1}}'
printf AggggBgggUBQAggggBgggV | seed extents three
printf %s "$request" | seed command payload
printf 'NSTR\1\0\1\0\0\0\0\0\150\0\0\0\1\0\0\0\0\0\0\0%s' "$request" | seed command whole
printf 'instar.disk=source,0x9,0xd0001000,0x2b2000' | seed command handover
for text in 1.5k 0x200 -1 8E .5G 0x1p3 1e3 010 'size=1,,2'; do
    printf %s "$text" | seed size_text "${text//[^a-z0-9A-Z]/_}"
done

# Who looks images over begins with all of them.
for image in "$corpus"/map_*/seed-*; do
    name=${image%/*}
    seed inspect "${name##*/map_}-${image##*/seed-}" <"$image"
done

cargo +nightly fuzz build --fuzz-dir ci/fuzz --target-dir "$target"
built=$target/$(rustc -vV | sed -n 's/^host: //p')/release
mapfile -t targets < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else cargo +nightly fuzz list --fuzz-dir ci/fuzz; fi)

# Runs TARGET for a while.
run() {
    local length=4096 artifacts=$PWD/ci/fuzz/artifacts/$1/
    [[ $1 != map_* && $1 != inspect && $1 != write_others ]] || length=131072
    mkdir -p "$corpus/$1" "$artifacts"
    "$built/$1" "$corpus/$1" -artifact_prefix="$artifacts" -max_total_time="$seconds" -max_len="$length" -timeout=20 \
        -rss_limit_mb=2048 -print_final_stats=1 >"$logs/$1" 2>&1
}

# As many at a time as there are cores.
failed=0
for ((first = 0; first < ${#targets[@]}; first += $(nproc))); do
    now=("${targets[@]:first:$(nproc)}") running=()
    for target in "${now[@]}"; do
        run "$target" &
        running+=($!)
    done
    for index in "${!now[@]}"; do
        if wait "${running[index]}"; then
            runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/${now[index]}")
            echo "ok: ${now[index]}, $runs runs"
        else
            failed=1
            echo "FAILED: ${now[index]}"
            grep -m 1 -A 3 -E 'panicked at|ERROR: (Addr|libFuzzer: (timeout|out))' "$logs/${now[index]}" || true
            tail -n 12 "$logs/${now[index]}" | cut -c 1-200
        fi
    done
done
exit $failed
