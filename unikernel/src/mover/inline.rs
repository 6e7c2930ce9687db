//! Compressing on the processor that asks for it.

use codecs::{Encoder, Method};
use formats::Codec;

use super::compress::{Compressor, Job};

/// Most bytes by which a stream can be longer than what it holds, for what is stored as a stream even then: five for each
/// 16 KiB that deflate stores as they are, and the ends.
fn overhead(length: usize) -> usize {
    length / 1024 + 64
}

/// What `codec` asks of an encoder; nothing where there is none.
pub fn method(codec: Codec) -> Option<Method> {
    match codec {
        Codec::Deflate => Some(Method::Deflate),
        Codec::Zlib => Some(Method::Zlib),
        Codec::Zstd => Some(Method::Zstd),
        Codec::Bzip2 | Codec::Lzfse => None,
    }
}

/// Bytes that the stream of a unit of `length` bytes may have: fewer than the unit, but for the method that stores all as
/// streams.
pub fn room(method: Method, length: usize) -> usize {
    match method {
        Method::Deflate | Method::Zstd => length.saturating_sub(1),
        Method::Zlib => length + overhead(length),
    }
}

/// One encoder and one unit at a time.
pub struct Inline {
    method: Method,
    encoder: Encoder,
    job: Option<Job>,
}

impl Inline {
    /// Compresses by `method`.
    pub fn new(method: Method) -> Self {
        Self { method, encoder: Encoder::new(method), job: None }
    }
}

impl Compressor for Inline {
    fn is_full(&self) -> bool {
        self.job.is_some()
    }

    fn submit(&mut self, mut job: Job) {
        job.output.resize(room(self.method, job.input.len()), 0);
        let length = self.encoder.encode(&job.input, &mut job.output).unwrap_or(0);
        job.output.truncate(length);
        self.job = Some(job);
    }

    fn oldest(&mut self) -> Option<Job> {
        self.job.take()
    }
}
