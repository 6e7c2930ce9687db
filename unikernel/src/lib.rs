//! The unikernel: boots in ring 3, reads one command from the console, answers it and waits to be thrown away.
#![no_std]

extern crate alloc;
