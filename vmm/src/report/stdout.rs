//! Standard output for much text: in large pieces, and not beyond the deadline, however slowly it is read.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    time::Instant,
};

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

/// Standard output until a deadline.
pub struct Stdout {
    out: File,
    buffer: Vec<u8>,
    deadline: Instant,
    /// Whether something could not be written: nothing is tried again then.
    failed: bool,
}

impl Stdout {
    /// Standard output until `deadline`: its signal is what interrupts a write to a pipe that nobody reads.
    pub fn until(deadline: Instant) -> io::Result<Self> {
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { out, buffer: Vec::with_capacity(2 * PIECE), deadline, failed: false })
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() && !self.failed {
            match self.out.write(rest) {
                Ok(count @ 1..) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted && Instant::now() < self.deadline => {}
                other => {
                    self.failed = true;
                    return Err(match other {
                        Ok(_) => ErrorKind::WriteZero.into(),
                        Err(error) if error.kind() == ErrorKind::Interrupted => ErrorKind::TimedOut.into(),
                        Err(error) => error,
                    });
                }
            }
        }
        self.buffer.clear();
        Ok(())
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.write_buffer()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_buffer()
    }
}
