//! From the first instruction to a running operation: the two doors, the heap, the panic handler, and the few memory
//! functions a C library would have brought. All of the guest's unsafe code that is not a driver is here.

mod devices;
mod heap;
mod memory;
mod panic;
mod start_info;
mod workers;

pub use devices::{Disks, start as start_devices};
pub use heap::size as heap_size;
pub use panic::{console, end_if_a_worker_panicked};
pub use start_info::{BootInfo, from_start_info};
pub use workers::{start_worker, workers};

/// Makes `$main`, a `fn(&BootInfo) -> !`, the guest's main function, and puts both doors into the binary. Processors beside
/// the first one run `$worker`, a `fn(usize) -> !`, with their number, or else [`work`](crate::workers::work).
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        $crate::guest!($main, $crate::workers::work);
    };
    ($main:path, $worker:path) => {
        core::arch::global_asm!(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/boot/entry.s")));

        /// Called by the doors with the address of the loader's `hvm_start_info`.
        #[unsafe(no_mangle)]
        extern "C" fn guest_main(start_info: usize) -> ! {
            // SAFETY: the door hands on what the loader gave it, and this is the first code to run.
            let boot = unsafe { $crate::boot::from_start_info(start_info) };
            $main(&boot)
        }

        /// Called by the first door on processors beside the first one.
        #[unsafe(no_mangle)]
        extern "C" fn guest_worker(idle: usize, number: usize) -> ! {
            // SAFETY: the door hands on what the machine gave it.
            unsafe { $crate::boot::start_worker(idle) };
            $worker(number)
        }
    };
}
