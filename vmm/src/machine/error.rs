//! Why no machine could be built.

use std::io;

use thiserror::Error;

/// A step of building the machine that failed.
#[derive(Debug, Error)]
pub enum MachineError {
    /// There is no `/dev/kvm`.
    #[error(
        "Could not open '/dev/kvm': No such file or directory; load kvm_intel or kvm_amd, and see that virtualization \
         is on in the firmware or, inside a virtual machine, that nesting is on"
    )]
    NoKvm,
    /// `/dev/kvm` may not be opened by this user.
    #[error(
        "Could not open '/dev/kvm': Permission denied; add the user to group 'kvm' (usermod -aG kvm USER) and log in \
         again"
    )]
    KvmDenied,
    /// `/dev/kvm` does not open, or is not KVM.
    #[error("Could not open '/dev/kvm': {0}")]
    KvmUnusable(io::Error),
    /// KVM refused a step.
    #[error("KVM could not {step}: {error}")]
    Kvm {
        /// What it was asked to do.
        step: &'static str,
        /// What it answered.
        error: io::Error,
    },
    /// The host kernel's KVM lacks something.
    #[error("KVM of this kernel has no {0}")]
    Capability(&'static str),
    /// The guest's memory could not be had.
    #[error("Could not map {size} bytes of guest memory: {error}")]
    Memory {
        /// Bytes asked for.
        size: u64,
        /// What the kernel answered.
        error: io::Error,
    },
    /// The size given for the guest's memory is out of range.
    #[error("Guest memory must be between {min} and {max} bytes, not {size}")]
    MemorySize {
        /// Bytes asked for.
        size: u64,
        /// Least possible.
        min: u64,
        /// Most possible.
        max: u64,
    },
    /// The guest's ELF is not what this machine boots.
    #[error("Guest image: {0}")]
    Image(String),
    /// The thread of a further vCPU could not be started.
    #[error("Could not start the thread of a vCPU: {0}")]
    Worker(io::Error),
    /// The timer for the deadline or its signal could not be set up.
    #[error("Could not arm the deadline: {0}")]
    Deadline(io::Error),
}

impl MachineError {
    /// KVM refused `step`.
    pub(super) fn kvm(step: &'static str, error: kvm_ioctls::Error) -> Self {
        Self::Kvm { step, error: io::Error::from_raw_os_error(error.errno()) }
    }
}
