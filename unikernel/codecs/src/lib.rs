//! Compression libraries behind one function each way: a cluster in, a stream out, and back.
//!
//! Coders get all the memory that they will ever use when they are made. From then on none is asked for: a coder can be used
//! by a processor that must not touch the heap. Which libraries these are, and why, is in docs/convert.md.
#![no_std]
#![deny(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

extern crate alloc;

mod deflate;
mod memory;
mod zstd;

use deflate::{Deflate, Inflate};
use zstd::{ZstdDecoder, ZstdEncoder};

/// What clusters are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Raw deflate with a window of 4 KiB, as in qcow2.
    Deflate,
    /// Deflate with a window of 32 KiB in a zlib stream, as in VMDK.
    Zlib,
    /// One Zstandard frame, as in qcow2.
    Zstd,
}

/// Compresses with one method, about as well as `qemu-img` does.
pub struct Encoder(Encoders);

enum Encoders {
    Deflate(Deflate),
    Zstd(ZstdEncoder),
}

impl Encoder {
    /// An encoder with all its memory: up to 1.3 MiB, little of which is touched for small clusters.
    pub fn new(method: Method) -> Self {
        Self(match method {
            Method::Deflate => Encoders::Deflate(Deflate::raw()),
            Method::Zlib => Encoders::Deflate(Deflate::zlib()),
            Method::Zstd => Encoders::Zstd(ZstdEncoder::new()),
        })
    }

    /// Compresses `input` into `output`, and gives the length of the stream. `None` if it is longer than `output`, whose
    /// bytes are any then.
    pub fn encode(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        match &mut self.0 {
            Encoders::Deflate(deflate) => deflate.encode(input, output),
            Encoders::Zstd(zstd) => zstd.encode(input, output),
        }
    }
}

/// Decompresses with one method. What is taken for a cluster is what `qemu-img` takes for it.
pub struct Decoder(Decoders);

enum Decoders {
    Raw(Inflate),
    Zlib(Inflate),
    Zstd(ZstdDecoder),
}

impl Decoder {
    /// A decoder with all its memory: up to 160 KiB.
    pub fn new(method: Method) -> Self {
        Self(match method {
            Method::Deflate => Decoders::Raw(Inflate::raw()),
            Method::Zlib => Decoders::Zlib(Inflate::zlib()),
            Method::Zstd => Decoders::Zstd(ZstdDecoder::new()),
        })
    }

    /// Decodes the stream that `input` begins with into `output`, a cluster, and gives the length of what was decoded:
    /// of a zlib stream it may be less than the cluster. `None` if this is no such stream, whole and right.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        match &mut self.0 {
            Decoders::Raw(inflate) => inflate.fill(input, output),
            Decoders::Zlib(inflate) => inflate.whole(input, output),
            Decoders::Zstd(zstd) => zstd.decode(input, output),
        }
    }
}

#[cfg(test)]
mod tests;
