#!/usr/bin/env bash
# The walls of docs/design.md: each a function that prints what broke it. Ends non-zero if any is broken.
# No pipefail: a search that finds nothing is what we want.
set -eu
cd "$(dirname "$0")/.."

broken=0

# Reports the lines on standard input, if there are any: WALL.
none() {
    local found
    found=$(cat)
    if [ -n "$found" ]; then
        broken=1
        printf 'broken: %s\n%s\n' "$1" "$found" | sed '2,$s/^/    /'
    else
        printf 'holds:  %s\n' "$1"
    fi
}

# Lines of tracked files: PATTERN PATHSPEC...; no match is no failure.
lines() {
    git grep -nE "$@" || true
}

# Our own packages that PACKAGE is built from, itself left out: PACKAGE [FLAG...].
ours() {
    local package=$1
    shift
    { cargo tree --locked --quiet --package "$package" --edges normal,build --prefix none --format '{p}' "$@" ||
        echo 'cargo-tree-failed (/)'; } |
        awk '/\(\// {print $1}' | sort -u | grep -vx "$package" || true
}

# PACKAGE may be built from ALLOWED... of ours and from no other.
arrows() {
    local package=$1
    shift
    ours "$package" | grep -vxF "$(printf '%s\n' "$@" _)" | none "$package is built from ${*:-nothing} of ours only"
}

arrows instar protocol
arrows unikernel protocol drivers formats calc codecs
arrows codecs
arrows formats
arrows drivers
arrows protocol
arrows calc
{ cargo tree --locked --quiet --package calc --edges normal,build --prefix none || printf 'cargo tree\nfailed\n'; } | sed 1d |
    none 'calc depends on nothing'

for crate in formats calc unikernel/protocol; do
    grep -L '^#!\[forbid(unsafe_code)\]' "$crate/src/lib.rs" | none "$crate forbids unsafe code"
done
for crate in formats calc unikernel/protocol drivers; do
    for lint in unwrap_used expect_used panic cast_possible_truncation; do
        grep -LE "^#!\[deny\(.*clippy::$lint" "$crate/src/lib.rs"
    done | none "$crate denies unwrap, expect, panic and truncating casts"
done

# A word in code, not in a comment or a lint's name.
unsafe_code='(^|[^/_a-z(])unsafe( |\(|\{|$)'
lines "$unsafe_code" -- vmm/src ':!vmm/src/machine' ':!vmm/src/devices' | grep -vE ':[0-9]+: *//' |
    none 'unsafe code of the host is in machine and devices'
lines "$unsafe_code" -- unikernel/src ':!unikernel/src/boot' ':!unikernel/src/bin' | grep -vE ':[0-9]+: *//' |
    none "unsafe code of the guest is in boot, drivers and codecs (and in the rogue and the benchmark)"
grep -L 'undocumented_unsafe_blocks = "deny"' Cargo.toml | none 'every unsafe block says why it is safe'

lines 'create_vm\(' -- vmm/src ':!vmm/src/machine' | none 'machines are made in vmm/src/machine'
lines 'Machine::build\(' -- vmm/src ':!vmm/src/launch.rs' | none 'one function launches a machine'
lines 'vcpu\.run\(' -- vmm/src ':!vmm/src/machine/workers.rs' | sed 1d | none 'one loop runs a vCPU, and another the workers'
lines '\.run\(' -- vmm/src/machine | grep 'self\.fd\.run' | sed 1d | none 'one place enters the guest'

awk '/^\[profile\.release\]/ {release = 1} /^\[/ && !/profile\.release/ {release = 0} release' Cargo.toml |
    grep -c 'overflow-checks = true' | grep -vx 1 | none 'release builds check for overflow'

lines '#\[ignore|todo!|unimplemented!|TODO|FIXME|XXX|not yet (wired|implemented|supported)|[Pp]hase [0-9]' \
    -- '*.rs' '*.s' '*.ld' '*.md' '*.sh' '*.toml' ':!ci/walls.sh' | none 'nothing is left for later'

for manifest in */Cargo.toml unikernel/*/Cargo.toml; do
    grep -qA1 '^\[lints\]' "$manifest" || echo "$manifest"
done | none 'every package takes the lints of the workspace'

lines '(^|[^A-Za-z0-9_}])/(work|root|home)/[a-z]|/tmp/[a-z]*tgt' -- ':!ci/walls.sh' ':!*.lock' |
    none 'no path of anybody'"'"'s machine stands anywhere'
grep -h '^source = ' Cargo.lock ci/fuzz/Cargo.lock | grep -vx 'source = "registry+https://github.com/rust-lang/crates.io-index"' |
    none 'every dependency comes from crates.io'

# Each test that a document names exists.
grep -ohE '`[a-z0-9_]{20,}`' docs/quirks.md docs/threat-model.md | tr -d '`' | sort -u | while read -r test; do
    git grep -qE "fn $test\(" -- '*.rs' || echo "$test"
done | none 'every test that the documents name exists'

exit $broken
