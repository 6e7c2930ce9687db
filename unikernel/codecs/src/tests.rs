//! What is encoded is decoded, by these decoders and by others; what is no stream is refused.

use alloc::{vec, vec::Vec};

use super::*;

const METHODS: [Method; 3] = [Method::Deflate, Method::Zlib, Method::Zstd];

/// Numbers that look random, from a seed (splitmix64).
fn numbers(mut seed: u64) -> impl Iterator<Item = u64> {
    core::iter::repeat_with(move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Bytes of `symbols` different values: few are compressed well, 256 not at all.
fn bytes(seed: u64, length: usize, symbols: u64) -> Vec<u8> {
    numbers(seed).map(|number| u8::try_from(number % symbols).unwrap()).take(length).collect()
}

#[test]
fn clusters_survive() {
    for method in METHODS {
        let (mut encoder, mut decoder) = (Encoder::new(method), Decoder::new(method));
        for length in [1, 512, 4096, 65536, 2 << 20] {
            for symbols in [1, 2, 50, 200] {
                let cluster = bytes(length as u64, length, symbols);
                let mut stream = vec![0; length + 64];
                let coded = encoder.encode(&cluster, &mut stream).unwrap();
                assert!(length < 4096 || symbols > 50 || coded < length, "{method:?} {length} {symbols}");
                let mut decoded = vec![0; length];
                assert_eq!(
                    decoder.decode(&stream[..coded], &mut decoded),
                    Some(length),
                    "{method:?} {length}"
                );
                assert!(decoded == cluster, "{method:?} {length} {symbols}");
                // Bytes of another cluster's may follow.
                if method != Method::Zlib {
                    assert_eq!(decoder.decode(&stream, &mut decoded), Some(length), "{method:?} {length}");
                }
            }
        }
    }
}

#[test]
fn an_encoder_stays_whole_however_often_there_is_no_room() {
    for method in METHODS {
        let mut encoder = Encoder::new(method);
        let mut output = vec![0; 4095];
        for seed in 0..20_000 {
            assert_eq!(encoder.encode(&bytes(seed, 4096, 256), &mut output), None, "{method:?} {seed}");
        }
        assert!(encoder.encode(&[0; 4096], &mut output).is_some());
    }
}

#[test]
fn what_does_not_get_shorter_is_told() {
    for method in METHODS {
        let mut encoder = Encoder::new(method);
        let noise = bytes(7, 65536, 256);
        assert_eq!(encoder.encode(&noise, &mut vec![0; 65535]), None, "{method:?}");
        // And the encoder is as good as new.
        let zeros = [0; 65536];
        let mut stream = vec![0; 65535];
        let length = encoder.encode(&zeros, &mut stream).unwrap();
        let mut decoded = vec![1; 65536];
        assert_eq!(Decoder::new(method).decode(&stream[..length], &mut decoded), Some(65536));
        assert!(decoded == zeros);
    }
}

/// What other libraries make of a stream that should be a cluster of `length` bytes.
fn decode_elsewhere(method: Method, stream: &[u8], length: usize) -> Option<Vec<u8>> {
    use miniz_oxide::inflate::{
        TINFLStatus,
        core::{DecompressorOxide, decompress, inflate_flags as flags},
    };
    let mut output = vec![0; length];
    let inflate = |flags, output: &mut [u8]| {
        let flags = flags | flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, _, filled) = decompress(&mut DecompressorOxide::new(), stream, output, 0, flags);
        (status, filled)
    };
    let filled = match method {
        Method::Deflate => {
            let (status, filled) = inflate(0, &mut output);
            let failed = matches!(status, TINFLStatus::Failed | TINFLStatus::BadParam);
            (!failed && filled == length).then_some(filled)
        }
        Method::Zlib => {
            let zlib = flags::TINFL_FLAG_PARSE_ZLIB_HEADER | flags::TINFL_FLAG_COMPUTE_ADLER32;
            let (status, filled) = inflate(zlib, &mut output);
            (status == TINFLStatus::Done).then_some(filled)
        }
        Method::Zstd => ruzstd::decoding::FrameDecoder::new().decode_all(stream, &mut output).ok(),
    };
    filled.map(|filled| output[..filled].to_vec())
}

#[test]
fn other_libraries_decode_the_same() {
    for method in METHODS {
        let (mut encoder, mut decoder) = (Encoder::new(method), Decoder::new(method));
        for symbols in [1, 3, 60] {
            let cluster = bytes(symbols, 65536, symbols);
            let mut stream = vec![0; 65536];
            let length = encoder.encode(&cluster, &mut stream).unwrap();
            assert!(
                decode_elsewhere(method, &stream[..length], 65536) == Some(cluster),
                "{method:?} {symbols}"
            );
        }
        // So do they with what somebody has broken. (Of zstd the two libraries do not accept quite the same.)
        if method == Method::Zstd {
            continue;
        }
        let cluster = bytes(5, 4096, 30);
        let mut stream = vec![0; 4096];
        let length = encoder.encode(&cluster, &mut stream).unwrap();
        let mut random = numbers(11);
        for _ in 0..3000 {
            let mut broken = stream[..length].to_vec();
            let at = usize::try_from(random.next().unwrap()).unwrap() % length;
            broken[at] ^= 1 << (random.next().unwrap() % 8);
            let mut decoded = vec![0; 4096];
            let ours = decoder.decode(&broken, &mut decoded).map(|length| decoded[..length].to_vec());
            assert_eq!(ours, decode_elsewhere(method, &broken, 4096), "{method:?}");
        }
    }
}

/// The window of qcow2 is 4 KiB: nobody may be sent further back.
#[test]
fn raw_deflate_looks_back_4_kib_at_most() {
    let half = bytes(3, 5000, 256);
    let cluster = [half.as_slice(), &half].concat();
    let mut stream = vec![0; 20_000];
    let length = Encoder::new(Method::Deflate).encode(&cluster, &mut stream).unwrap();
    assert!(length > cluster.len(), "{length}");
    let length = Encoder::new(Method::Zlib).encode(&cluster, &mut stream).unwrap();
    assert!(length < 5200, "{length}");
}

#[test]
fn broken_streams_are_refused_or_decoded_within_the_cluster() {
    for method in METHODS {
        let mut decoder = Decoder::new(method);
        let cluster = bytes(1, 4096, 20);
        let mut stream = vec![0; 4096];
        let length = Encoder::new(method).encode(&cluster, &mut stream).unwrap();
        let stream = &stream[..length];
        let mut decoded = vec![0; 4096];
        for cut in 0..length / 2 {
            assert_eq!(decoder.decode(&stream[..cut], &mut decoded), None, "{method:?} {cut}");
        }
        let mut random = numbers(9);
        for _ in 0..2000 {
            let mut broken = stream.to_vec();
            let at = usize::try_from(random.next().unwrap()).unwrap() % length;
            broken[at] ^= 1 << (random.next().unwrap() % 8);
            if let Some(length) = decoder.decode(&broken, &mut decoded) {
                assert!(length <= decoded.len());
            }
        }
        // A cluster that is shorter than what comes.
        assert_eq!(decoder.decode(stream, &mut decoded[..100]).is_some(), method == Method::Deflate);
    }
}

/// A frame may say that it needs a window of up to 128 MiB, whatever it holds.
#[test]
fn a_frame_with_too_large_a_window_is_refused() {
    // Magic, descriptor, window, and one block: last, of one byte a hundred times.
    let frame = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, window, 0x23, 0x03, 0, 7];
    let mut decoder = Decoder::new(Method::Zstd);
    let mut decoded = [0; 100];
    assert_eq!(decoder.decode(&frame(17 << 3), &mut decoded), Some(100));
    assert_eq!(decoded, [7; 100]);
    assert_eq!(decoder.decode(&frame(17 << 3 | 1), &mut decoded), None);
}
