//! Times one compression library on the disk `source`: a guest of its own, run by `vmm/examples/codecs.rs`.
//!
//! The payload of the command is `encode` or `decode`, a library and a method. The answer is written as one of measure: what
//! was coded became `required` bytes of `fully-allocated`, in `bitmaps` ticks of the time-stamp counter.
#![no_std]
#![no_main]

extern crate alloc;

mod libdeflate;
mod zlib_rs;

use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use core::arch::x86_64::_rdtsc;

use codecs::{Decoder, Encoder, Method};
use miniz_oxide::{
    DataFormat,
    deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress},
    inflate::core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF},
};
use protocol::{Answer, ErrorKind, ErrorRecord, MeasureAnswer, Record};
use ruzstd::{
    decoding::FrameDecoder,
    encoding::{CompressionLevel, compress_to_vec},
};
use unikernel::{
    boot::{self, BootInfo},
    workers::{Job, Pool, Task},
};

unikernel::guest!(main);

const CLUSTER: usize = 64 << 10;

/// How often each cluster is coded.
const ROUNDS: usize = 5;

/// A library in one direction: from a slice into a slice, the length of what was written.
type Coder = Box<dyn FnMut(&[u8], &mut [u8]) -> Option<usize>>;

fn main(info: &BootInfo) -> ! {
    let mut disks = boot::start_devices(info.command_line);
    loop {
        let (header, payload) = unikernel::read_command().expect("a command");
        let request_id = header.request_id;
        let mut source = disks.take("source").expect("a source");
        let mut data = vec![0; source.len() as usize / CLUSTER * CLUSTER];
        source.read(0, &mut data).expect("a source that can be read");
        let record = match run(core::str::from_utf8(&payload).unwrap_or_default(), &data) {
            Ok(answer) => Record::Result { request_id, answer: Answer::Measure(answer) },
            Err(message) => Record::Error { request_id, error: ErrorRecord::new(ErrorKind::Usage, message) },
        };
        boot::console(|console| console.write(&record.to_line()));
    }
}

fn run(deed: &str, data: &[u8]) -> Result<MeasureAnswer, String> {
    let mut words = deed.split(' ');
    let (direction, library, method) = (words.next(), words.next().unwrap_or_default(), words.next());
    let method = match method {
        Some("deflate") => Method::Deflate,
        Some("zlib") => Method::Zlib,
        Some("zstd") => Method::Zstd,
        _ => return Err(format!("no method: {deed}")),
    };
    let unknown = || format!("no such library: {deed}");
    match direction {
        Some("encode") if library == "pool" => Ok(encode_in_pool(method, data)),
        Some("encode") => Ok(encode(encoder(library, method).ok_or_else(unknown)?, data)),
        Some("decode") => decode(decoder(library, method).ok_or_else(unknown)?, method, data),
        _ => Err(format!("no direction: {deed}")),
    }
}

fn encode(mut coder: Coder, data: &[u8]) -> MeasureAnswer {
    let mut output = vec![0; CLUSTER];
    let clusters: Vec<&[u8]> = data.chunks(CLUSTER).collect();
    let mut coded = 0;
    for cluster in &clusters {
        coded += coder(cluster, &mut output).unwrap_or(CLUSTER);
    }
    let ticks = time(&clusters, |cluster| {
        coder(cluster, &mut output);
    });
    answer(coded, data.len(), ticks)
}

/// Ticks that `work` takes for all clusters: of each the least of some, so that it matters little what else the host does.
fn time(clusters: &[&[u8]], mut work: impl FnMut(&[u8])) -> u64 {
    let mut least = vec![u64::MAX; clusters.len()];
    for _ in 0..ROUNDS {
        for (cluster, least) in clusters.iter().zip(&mut least) {
            let begin = ticks();
            work(cluster);
            *least = (ticks() - begin).min(*least);
        }
    }
    least.iter().sum()
}

/// The chosen library on all processors of the machine.
fn encode_in_pool(method: Method, data: &[u8]) -> MeasureAnswer {
    let task = Task::Encode(method);
    let mut pool = Pool::new(&[task], 16);
    let mut free: Vec<Job> =
        (0..16).map(|_| Job { task, input: vec![0; CLUSTER], output: vec![0; CLUSTER] }).collect();
    let (mut coded, mut least) = (0, u64::MAX);
    for _ in 0..ROUNDS {
        coded = 0;
        let begin = ticks();
        for cluster in data.chunks(CLUSTER) {
            let mut job = free.pop().unwrap_or_else(|| {
                let done = pool.take().expect("a job on its way");
                coded += done.length.unwrap_or(CLUSTER);
                done.job
            });
            job.input.copy_from_slice(cluster);
            assert!(pool.submit(job).is_ok(), "there is room");
        }
        while let Some(done) = pool.take() {
            coded += done.length.unwrap_or(CLUSTER);
            free.push(done.job);
        }
        least = (ticks() - begin).min(least);
    }
    answer(coded, data.len(), least)
}

fn decode(mut coder: Coder, method: Method, data: &[u8]) -> Result<MeasureAnswer, String> {
    let mut encoder = Encoder::new(method);
    let mut output = vec![0; CLUSTER];
    let mut streams: Vec<(Vec<u8>, &[u8])> = vec![];
    for cluster in data.chunks(CLUSTER) {
        if let Some(length) = encoder.encode(cluster, &mut output) {
            streams.push((Vec::from(&output[..length]), cluster));
        }
    }
    for (stream, cluster) in &streams {
        if coder(stream, &mut output) != Some(CLUSTER) || output != *cluster {
            return Err("decoded to something else".into());
        }
    }
    let coded: Vec<&[u8]> = streams.iter().map(|(stream, _)| stream.as_slice()).collect();
    let ticks = time(&coded, |stream| {
        coder(stream, &mut output);
    });
    Ok(answer(streams.iter().map(|(stream, _)| stream.len()).sum(), streams.len() * CLUSTER, ticks))
}

fn answer(coded: usize, plain: usize, ticks: u64) -> MeasureAnswer {
    MeasureAnswer { required: coded as u64, fully_allocated: plain as u64, bitmaps: Some(ticks) }
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and the machine leaves it to ring 3.
    unsafe { _rdtsc() }
}

fn encoder(library: &str, method: Method) -> Option<Coder> {
    Some(match (library, method) {
        ("codecs", _) => {
            let mut encoder = Encoder::new(method);
            Box::new(move |input, output| encoder.encode(input, output))
        }
        ("zlib_rs", Method::Deflate) => zlib_rs::encoder(-12, 9),
        ("zlib_rs", Method::Zlib) => zlib_rs::encoder(15, 8),
        ("miniz_oxide", Method::Zlib) => {
            let mut compressor: Box<CompressorOxide> = Box::default();
            compressor.set_format_and_level(DataFormat::Zlib, 6);
            Box::new(move |input, output| {
                compressor.reset();
                let (status, _, length) = compress(&mut compressor, input, output, TDEFLFlush::Finish);
                (status == TDEFLStatus::Done).then_some(length)
            })
        }
        ("libdeflate", Method::Zlib) => libdeflate::encoder(),
        ("ruzstd", Method::Zstd) => Box::new(|input, output| {
            let stream = compress_to_vec(input, CompressionLevel::Fastest);
            output.get_mut(..stream.len())?.copy_from_slice(&stream);
            Some(stream.len())
        }),
        _ => return None,
    })
}

fn decoder(library: &str, method: Method) -> Option<Coder> {
    Some(match (library, method) {
        ("codecs", _) => {
            let mut decoder = Decoder::new(method);
            Box::new(move |input, output| decoder.decode(input, output))
        }
        ("miniz_oxide", Method::Deflate) => Box::new(|input, output| {
            let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            Some(decompress(&mut DecompressorOxide::new(), input, output, 0, flags).2)
        }),
        ("libdeflate", Method::Deflate) => libdeflate::decoder(),
        ("ruzstd", Method::Zstd) => {
            let mut decoder = FrameDecoder::new();
            Box::new(move |input, output| decoder.decode_all(input, output).ok())
        }
        _ => return None,
    })
}
