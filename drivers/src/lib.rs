//! Guest side of virtio.
#![no_std]
