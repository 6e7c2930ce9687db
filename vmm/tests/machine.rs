//! The one way to run a command, in each of its modes, on a real image in a real machine.

use std::{
    fs::File,
    io::Write,
    process::Command as Process,
    time::{Duration, Instant},
};

use instar::{
    error::Error,
    launch::{Command, DeviceStart, Disk, IoMode, Limits, no_parts, run},
};
use protocol::{
    Answer, ErrorKind, ExtentMap, FileFacts, ImageSource, MeasureAnswer, MeasureRequest, MeasureSubject, Op,
    QemuVersion,
};

const LIMITS: Limits = Limits { memory: 64 << 20, timeout: Duration::from_secs(60) };

fn facts(disk: &str, length: u64, extents: ExtentMap) -> FileFacts {
    FileFacts { disk: disk.into(), length, allocated: length, extents, named_dmg: false }
}

fn request(file: FileFacts) -> Vec<u8> {
    let request = MeasureRequest {
        profile: QemuVersion::default(),
        target_format: "qcow2".into(),
        options: None,
        secrets: vec![],
        beyond: false,
        exact: None,
        compress: false,
        subject: MeasureSubject::Image { source: Box::new(ImageSource::new(file, None)), snapshot: None },
    };
    serde_json::to_vec(&request).unwrap()
}

fn disk(serial: &str, file: &File) -> Disk {
    let length = file.metadata().unwrap().len();
    Disk::read_only(serial, file.try_clone().unwrap(), length)
}

fn measure(
    payload: &[u8],
    disks: Vec<Disk>,
    start: DeviceStart,
    limits: &Limits,
) -> Result<MeasureAnswer, Error> {
    let command = Command { disks, start, ..Command::new(Op::Measure, payload.to_vec()) };
    match run(command, limits, None, &mut no_parts)?.answer {
        Answer::Measure(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

/// A qcow2 of 3 MiB of data in 512-byte clusters: some hundred table reads.
fn image() -> File {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.qcow2");
    let qemu_img = std::env::var_os("QEMU_IMG").unwrap_or("qemu-img".into());
    let raw = directory.path().join("raw");
    std::fs::write(&raw, vec![1_u8; 3 << 20]).unwrap();
    let status = Process::new(qemu_img)
        .args(["convert", "-O", "qcow2", "-o", "cluster_size=512"])
        .args([&raw, &path])
        .status()
        .expect("qemu-img runs");
    assert!(status.success());
    File::open(path).unwrap()
}

#[test]
fn every_way_to_start_devices_and_do_io_gives_the_same_answer() {
    let file = image();
    let length = file.metadata().unwrap().len();
    let payload = request(facts("source", length, ExtentMap::Inline(vec![(0, length)])));
    let mut answers = vec![];
    for io in [IoMode::Inline, IoMode::Threaded] {
        for start in [DeviceStart::HandedOver, DeviceStart::ByGuest] {
            answers.push(measure(&payload, io.for_all(vec![disk("source", &file)]), start, &LIMITS).unwrap());
        }
    }
    // 3 MiB of data, and metadata for as much.
    assert_eq!(answers[0].required, answers[0].fully_allocated);
    assert!(answers[0].required > 3 << 20);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn a_map_of_extents_on_a_disk_counts_as_one_in_the_command() {
    const LENGTH: u64 = 64 << 20;
    let ranges: Vec<(u64, u64)> = (0..20_000).map(|index| (index * 3000, index * 3000 + 1000)).collect();
    let file = tempfile::tempfile().unwrap();
    file.set_len(LENGTH).unwrap();
    let mut map = tempfile::tempfile().unwrap();
    for (start, end) in &ranges {
        map.write_all(&[start.to_le_bytes(), end.to_le_bytes()].concat()).unwrap();
    }
    let on_disk = ExtentMap::Disk { disk: "source.extents".into(), count: ranges.len() as u64 };
    // Each disk is served in its own way.
    let mut source = disk("source", &file);
    source.io = IoMode::Threaded;
    let disks = vec![source, disk("source.extents", &map)];
    let payload = request(facts("source", LENGTH, on_disk));
    let answer = measure(&payload, disks, DeviceStart::HandedOver, &LIMITS).unwrap();

    // Clusters of 64 KiB with data in them: all up to the last range. The rest is a hole.
    let clusters = ranges.last().unwrap().1.div_ceil(65536);
    assert_eq!(answer.fully_allocated - answer.required, LENGTH - clusters * 65536);
}

#[test]
fn a_disk_that_is_not_there_is_an_error() {
    let payload = request(facts("other", 512, ExtentMap::Inline(vec![])));
    let error = measure(&payload, vec![], DeviceStart::HandedOver, &LIMITS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_payload_that_is_no_command_is_refused_by_the_guest() {
    let error = measure(b"{}", vec![], DeviceStart::HandedOver, &LIMITS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn memory_out_of_range_is_refused() {
    for memory in [0, 15 << 20, 1 << 40] {
        let limits = Limits { memory, ..LIMITS };
        let error = measure(b"{}", vec![], DeviceStart::HandedOver, &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{memory}");
    }
}

#[test]
fn machines_run_side_by_side() {
    let file = image();
    let length = file.metadata().unwrap().len();
    let payload = request(facts("source", length, ExtentMap::Inline(vec![(0, length)])));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (payload, file) = (&payload, &file);
            scope.spawn(move || {
                let io = if thread % 2 == 0 { IoMode::Inline } else { IoMode::Threaded };
                let disks = io.for_all(vec![disk("source", file)]);
                measure(payload, disks, DeviceStart::HandedOver, &LIMITS).unwrap();
            });
        }
    });
    assert!(begin.elapsed() < LIMITS.timeout);
}
