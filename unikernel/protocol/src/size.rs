//! The grammar of sizes on a command line (`qemu_strtosz`): `1G`, `1.5k`, `0x200`.
