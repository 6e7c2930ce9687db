//! The guest of every command.
#![no_std]
#![no_main]

use unikernel::boot::BootInfo;

unikernel::guest!(main);

fn main(boot: &BootInfo) -> ! {
    unikernel::serve(boot)
}
