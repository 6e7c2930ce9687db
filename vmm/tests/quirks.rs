//! Deliberate differences from `qemu-img` that no other test holds: each test is named in docs/quirks.md.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

fn instar(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_instar"));
    command.current_dir(directory).env("LC_ALL", "C").env_remove("INSTAR_QEMU_VERSION");
    command.args(arguments).output().unwrap()
}

/// Asserts a failure whose one message is `text`.
fn assert_refused(directory: &TempDir, arguments: &[&str], text: &str) {
    let output = instar(directory, arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr), text, "{arguments:?}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}");
}

fn qemu_img(directory: &TempDir, arguments: &[&str]) -> bool {
    let program = std::env::var_os("QEMU_IMG").unwrap_or("qemu-img".into());
    Command::new(program)
        .current_dir(directory)
        .args(arguments)
        .output()
        .expect("qemu-img runs")
        .status
        .success()
}

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

fn file(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}

#[test]
fn the_only_objects_are_secrets() {
    let directory = tempfile::tempdir().unwrap();
    for kind in ["help", "iothread"] {
        let object = format!("{kind},id=a");
        let text = format!("instar: Parameter 'qom-type' does not accept value '{kind}' (usage)\n");
        assert_refused(&directory, &["measure", "--object", &object, "--size", "1G"], &text);
    }
}

#[test]
fn a_secrets_file_is_not_read_by_measure() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["measure", "--object", "secret,id=a,file=missing", "-O", "luks", "-o", "key-secret=a"];
    let output = instar(&directory, &[&arguments[..], &["--size", "1G"]].concat());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_missing_file_is_told_before_an_unknown_format() {
    let directory = tempfile::tempdir().unwrap();
    let text = "instar: Could not open 'missing': Could not open 'missing': No such file or directory (io)\n";
    assert_refused(&directory, &["measure", "-f", "nosuch", "missing"], text);
}

#[test]
fn an_ambiguous_option_lists_its_meanings_in_the_newest_order() {
    let directory = tempfile::tempdir().unwrap();
    let text = "instar measure: option '--o' is ambiguous; possibilities: '--options' '--output' '--object' (usage)\n\
                Try 'instar measure --help' for more info\n";
    assert_refused(&directory, &["measure", "--qemu-version", "10.0", "--o", "json", "--size", "1G"], text);
}

#[test]
fn there_is_no_tracing() {
    let directory = tempfile::tempdir().unwrap();
    for option in ["-T", "--trace"] {
        let output = instar(&directory, &["measure", option, "x", "--size", "1G"]);
        assert_eq!(output.status.code(), Some(1), "{option}");
    }
    let output = instar(&directory, &["--trace", "x", "measure", "--size", "1G"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_external_data_file_is_named_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    assert!(qemu_img(&directory, &["create", "-f", "qcow2", "-o", "data_file=data.raw", "a.qcow2", "1M"]));
    fs::remove_file(file(&directory, "data.raw")).unwrap();
    let text = "instar: Could not open 'a.qcow2': external data file 'data.raw' is a reference to another file and was \
                not followed (see --allow-references) (reference-denied: external data file name)\n";
    assert_refused(&directory, &["measure", "-O", "qcow2", "a.qcow2"], text);
}

#[test]
fn the_content_of_bitmaps_is_not_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    assert!(qemu_img(&directory, &["create", "-f", "qcow2", "a.qcow2", "64M"]));
    assert!(qemu_img(&directory, &["bitmap", "--add", "a.qcow2", "b0"]));
    // The first entry of the bitmap's directory begins with the offset of the bitmap's table: break that.
    let image = fs::read(file(&directory, "a.qcow2")).unwrap();
    let extension = image.windows(4).position(|word| word == [0x23, 0x85, 0x28, 0x75]).unwrap();
    let number = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let table = number(usize::try_from(number(extension + 24)).unwrap());
    patch(&file(&directory, "a.qcow2"), table, &u64::MAX.to_be_bytes());

    assert!(!qemu_img(&directory, &["measure", "-O", "qcow2", "a.qcow2"]));
    let output = instar(&directory, &["measure", "-O", "qcow2", "a.qcow2"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("bitmaps size: 196608\n"), "{output:?}");
}

#[test]
fn formats_in_modules_that_could_be_missing_are_unknown_without_a_second_line() {
    let directory = tempfile::tempdir().unwrap();
    let text = "instar: Unknown file format 'ssh' (unsupported)\n";
    assert_refused(&directory, &["measure", "-O", "ssh", "--size", "1G"], text);
}

#[test]
fn what_is_no_vhdx_is_said_to_be_none() {
    let directory = tempfile::tempdir().unwrap();
    File::create(file(&directory, "a.raw")).unwrap().set_len(1 << 20).unwrap();
    assert!(!qemu_img(&directory, &["measure", "-f", "vhdx", "a.raw"]));
    let text = "instar: Could not open 'a.raw': Image is not in VHDX format (invalid-format: signature)\n";
    assert_refused(&directory, &["measure", "-f", "vhdx", "a.raw"], text);
}

#[test]
fn parallels_and_zstd_are_read_in_every_profile() {
    let directory = tempfile::tempdir().unwrap();
    assert!(qemu_img(&directory, &["create", "-f", "parallels", "a.parallels", "64M"]));
    assert!(qemu_img(
        &directory,
        &["create", "-f", "qcow2", "-o", "compression_type=zstd", "a.qcow2", "64M"]
    ));
    for name in ["a.parallels", "a.qcow2"] {
        let output = instar(&directory, &["measure", "--qemu-version", "5.2", "-O", "raw", name]);
        let text = "required size: 67108864\nfully allocated size: 67108864\n";
        assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{name}: {output:?}");
    }
}
