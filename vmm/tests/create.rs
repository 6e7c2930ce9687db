//! `create` against the real `qemu-img`: what is printed, how it ends, and the file byte for byte wherever that is determined.

mod common;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::Stdio,
    time::Duration,
};

use common::{Bench, Said};

/// Where a format has ids, times and random names: not compared.
fn mask(format: &str, bytes: &mut Vec<u8>) {
    let mut blank = |start: usize, length: usize| {
        if let Some(part) = bytes.get_mut(start..start + length) {
            part.fill(0);
        }
    };
    match format {
        // "uuidCreate" and "uuidModify".
        "vdi" => blank(0x188, 32),
        "vpc" => {
            let end = bytes.len();
            let mut footer = |start: usize| {
                // "Time Stamp"; checksum, id.
                for (offset, length) in [(24, 4), (64, 4), (68, 16)] {
                    if let Some(part) = bytes.get_mut(start + offset..start + offset + length) {
                        part.fill(0);
                    }
                }
            };
            footer(0);
            footer(end.saturating_sub(512));
        }
        "vmdk" => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            if let Some(at) = text.find("\nCID=").filter(|_| text.is_ascii()) {
                let end = text[at + 5..].find('\n').map_or(text.len(), |length| at + 5 + length);
                bytes.drain(at + 5..end);
            } else if let Some(at) = find(bytes, b"\nCID=") {
                let end = at + 5 + bytes[at + 5..].iter().position(|&byte| byte == b'\n').unwrap_or(0);
                bytes.drain(at + 5..end);
                // Padding behind the text makes up for it.
                bytes.retain(|&byte| byte != 0);
            }
        }
        _ => {}
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The files of a directory and what is in them.
fn files(directory: &Path, format: &str) -> Vec<(String, u64, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let length = entry.metadata().unwrap().len();
            let mut bytes = if length <= 16 << 20 { fs::read(entry.path()).unwrap() } else { Vec::new() };
            mask(format, &mut bytes);
            let length = if format == "vmdk" { bytes.len() as u64 } else { length };
            (entry.file_name().into_string().unwrap(), length, bytes)
        })
        .collect();
    files.sort();
    files
}

/// Runs one line with both programs, each in a directory of its own, and tells how they differ.
fn difference(row: &(&str, String)) -> Option<String> {
    let (format, line) = row;
    let arguments: Vec<&str> = std::iter::once("create").chain(line.split(' ')).collect();
    let run = |program: fn(&Bench, &[&str]) -> Said| {
        let bench = Bench::new();
        fs::write(bench.path("base.raw"), [7; 3 << 10]).unwrap();
        let said = program(&bench, &arguments);
        (said, files(bench.directory(), format))
    };
    let (theirs, their_files) = run(|bench, arguments| bench.reference(arguments));
    let (ours, our_files) = run(|bench, arguments| bench.drop_in(arguments));
    if ours != theirs {
        return Some(format!("{line}:\nqemu-img: {theirs}\ninstar: {ours}"));
    }
    // What failed leaves nothing; qemu-img leaves what it has begun.
    let same = their_files == our_files || theirs.code != Some(0);
    (!same).then(|| {
        let names = |files: &[(String, u64, Vec<u8>)]| {
            files.iter().map(|(name, length, _)| format!("{name} {length}")).collect::<Vec<_>>().join(", ")
        };
        format!("{line}: {} and {}", names(&their_files), names(&our_files))
    })
}

fn assert_same(rows: &[(&'static str, String)]) {
    common::assert_none(&common::differences(rows, difference), rows.len());
}

#[test]
fn images_of_every_format_are_made_as_qemu_img_makes_them() {
    let mut rows = Vec::new();
    for (format, lists) in [
        ("raw", &["preallocation=off", "preallocation=falloc", "preallocation=full", "nocow=on"][..]),
        (
            "qcow2",
            &[
                "cluster_size=512",
                "cluster_size=2M",
                "compat=0.10",
                "compat=v3,lazy_refcounts",
                "extended_l2=on",
                "refcount_bits=1",
                "refcount_bits=64,cluster_size=4k",
                "preallocation=metadata",
                "preallocation=falloc",
                "preallocation=full",
                "extended_l2=on,preallocation=metadata",
                "data_file=data",
                "data_file=data,data_file_raw=on",
            ],
        ),
        (
            "vmdk",
            &[
                "compat6=on",
                "hwversion=7,adapter_type=lsilogic",
                "subformat=monolithicFlat",
                "subformat=twoGbMaxExtentSparse",
                "subformat=twoGbMaxExtentFlat",
                "subformat=streamOptimized",
                "zeroed_grain=on",
            ],
        ),
        ("vpc", &["force_size=on", "subformat=fixed", "subformat=fixed,force_size"]),
        ("vdi", &["static=on"]),
        ("qcow", &[]),
        ("qed", &["cluster_size=4k", "table_size=16"]),
        ("parallels", &["cluster_size=512k"]),
    ] {
        if format == "parallels" && common::major() < 7 {
            continue;
        }
        for size in ["1M", "3000000", "5G"] {
            rows.push((format, format!("-f {format} x.{format} {size}")));
            for list in lists {
                // 5.2 does not set metadata aside for such files.
                if list.contains("data_file_raw") && common::major() < 6 {
                    continue;
                }
                if size != "5G"
                    || !list.contains("alloc")
                        && !list.contains("raw")
                        && !list.contains("ixed")
                        && *list != "static=on"
                {
                    rows.push((format, format!("-f {format} -o {list} x.{format} {size}")));
                }
            }
        }
    }
    rows.push(("raw", "x 0".into()));
    rows.push(("qcow2", "-f qcow2 x 0".into()));
    rows.push(("qcow2", "-q -f qcow2 x 1T".into()));
    assert_same(&rows);
}

#[test]
fn command_lines_are_read_as_qemu_img_reads_them() {
    let lines = [
        "x",
        "x foo",
        "x 8E",
        "x 1M 2",
        "-f foo x 1M",
        "-f dmg x 1M",
        "-o foo=1 x 1M",
        "-o , x 1M",
        "-o size=foo x",
        "-f qcow2 -o size=2M x",
        "-f qcow2 -o size=2M x 1M",
        "none/x 1M",
        ". 1M",
        "foo:x 1M",
        "file:x 1M",
        "-f file x 1M",
        "-f raw -b base.raw x",
        "-f raw -F raw x 1M",
        "-f qcow2 -F raw x 1M",
        "-f qcow2 -b x -F raw x",
        "-f qcow2 -b base.raw -F raw x",
        "-f qcow2 -b base.raw -F raw x 1M",
        "-f qcow2 -b none -F raw x 1M",
        "-f qcow2 -u -b none -F raw x 1M",
        "-f qcow2 -u -b none -F raw x",
        "-f qcow2 -u -b none -F foo x 1M",
        "-f qcow2 -b base.raw -F foo x",
        "-f qcow2 -b base.raw -F qcow2 x",
        "-f qcow2 -o backing_file=base.raw,backing_fmt=raw x",
        "-f qcow2 -b . -F raw x",
        "-f qcow2 -b base.raw -F raw -o preallocation=metadata x",
        "-f qcow2 -o compat=x x 1M",
        "-f qcow2 -o compat=0.10,lazy_refcounts=on,extended_l2=on x 1M",
        "-f qcow2 -o compat=0.10,data_file=d x 1M",
        "-f qcow2 -o data_file_raw=on x 1M",
        "-f qcow2 -o encryption=on x 1M",
        "-f qcow2 -o encrypt.format=foo x 1M",
        "-f qcow2 -o encrypt.format=luks,encrypt.key-secret=s x 1M",
        "-f qcow2 -o encrypt.key-secret=s x 1M",
        "-f qcow2 -o encryption=on,encrypt.format=aes x 1M",
        "-f qcow2 -o compression_type=foo,preallocation=bar x 1M",
        "-f qcow2 -o cluster_size=3,compat=0.10,refcount_bits=3 x 1M",
        "-f qcow2 -o compat=0.10,refcount_bits=8 x 1M",
        "-f qcow2 -o cluster_size=512 x 1T",
        "-f qcow2 -o extent_size_hint=8G x 1M",
        "-f luks x 1M",
        "-f vmdk -o adapter_type=foo x 1M",
        "-f vmdk -b base.raw -F raw x",
        "-f vdi x 4E",
        "-f vhdx x 65T",
        "-f raw -o preallocation=metadata x 1M",
    ];
    let rows: Vec<_> = lines.into_iter().map(|line| ("raw", line.to_owned())).collect();
    assert_same(&rows);
}

#[test]
fn vhdx_images_are_read_by_qemu_img() {
    let bench = Bench::new();
    for list in ["block_size=1M", "subformat=fixed", "log_size=2M,block_size=256M"] {
        let said = bench.drop_in(&["create", "-f", "vhdx", "-o", list, "x.vhdx", "10M"]);
        assert_eq!(said.code, Some(0), "{said}");
        let info = bench.reference(&["info", "x.vhdx"]);
        assert!(info.stdout.contains("virtual size: 10 MiB (10485760 bytes)"), "{info}");
        assert_eq!(bench.reference(&["check", "x.vhdx"]).code, Some(0));
    }
}

#[test]
fn an_existing_file_is_overwritten_where_it_is() {
    let bench = Bench::new();
    let path = bench.path("x");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let before = fs::metadata(&path).unwrap();
    assert_eq!(bench.drop_in(&["create", "-f", "qcow2", "x", "1M"]).code, Some(0));
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
    assert_eq!(bench.reference(&["check", "x"]).code, Some(0));
}

#[test]
fn what_cannot_be_made_leaves_an_existing_file_alone() {
    let bench = Bench::new();
    fs::write(bench.path("x"), "precious").unwrap();
    assert_eq!(bench.drop_in(&["create", "-f", "qcow2", "-o", "cluster_size=3", "x", "1M"]).code, Some(1));
    assert_eq!(fs::read(bench.path("x")).unwrap(), b"precious");
}

#[test]
fn what_an_image_below_names_is_not_followed() {
    let bench = Bench::new();
    bench.make(&["create", "-f", "raw", "secret", "1M"]);
    bench.make(&["create", "-f", "qcow2", "-b", "secret", "-F", "raw", "middle"]);
    let line = ["create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "x"];
    let said = bench.instar(&line);
    assert!(said.code == Some(1) && said.stderr.contains("reference-denied"), "{said}");
    assert!(!bench.path("x").exists());
    let said = bench.instar(&[&line[..], &["--allow-references", "."]].concat());
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn killed_runs_leave_no_file() {
    let bench = Bench::new();
    for (signal, wait) in [(libc::SIGKILL, 0), (libc::SIGINT, 2), (libc::SIGKILL, 5), (libc::SIGTERM, 20)] {
        // What a shell starts in the background does not mind SIGINT.
        let mut command = bench.command("env");
        command.arg("--default-signal=INT,TERM").arg(bench.path("qemu-img"));
        command.args(["create", "-f", "raw", "-o", "preallocation=full", "x", "1G"]).stdout(Stdio::null());
        let mut child = command.process_group(0).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal));
        let names: Vec<_> =
            fs::read_dir(bench.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["qemu-img"]);
    }
}

#[test]
fn disks_that_are_too_large_are_refused() {
    let bench = Bench::new();
    for (format, size, why) in [
        ("raw", "7E", "Could not resize the image: File too large"),
        ("vpc", "3T", "Disk size is too large, max size is 2040 GiB"),
        ("vmdk", "1E", "The image size is too large for file format 'vmdk'"),
    ] {
        let said = bench.drop_in(&["create", "-f", format, "x", size]);
        assert_eq!((said.code, said.stderr), (Some(1), format!("qemu-img: x: {why}\n")), "{format}");
        assert!(!bench.path("x").exists());
    }
}

/// What a new encrypted image is made of: format, and its `-o` list.
const ENCRYPTED: [(&str, &str); 8] = [
    ("luks", "key-secret=s,iter-time=10"),
    ("luks", "key-secret=s,iter-time=0,cipher-alg=serpent-128,cipher-mode=ctr,hash-alg=sha512"),
    (
        "luks",
        "key-secret=s,iter-time=10,ivgen-alg=essiv,ivgen-hash-alg=sha256,cipher-mode=cbc,hash-alg=ripemd160",
    ),
    ("luks", "key-secret=s,iter-time=10,preallocation=full"),
    ("qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=4k"),
    (
        "qcow2",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.ivgen-alg=plain,compat=0.10",
    ),
    ("qcow2", "encrypt.format=aes,encrypt.key-secret=s"),
    ("qcow2", "encryption=on,encrypt.key-secret=s,preallocation=metadata"),
];

/// Takes what no two images have in common out of what `info` says.
fn settle_keys(text: &str) -> String {
    let own = ["iters", "uuid", "master key iters", "stride", "filename", "image:", "disk size", "date"];
    text.lines()
        .filter(|line| !own.iter().any(|name| line.trim_start().starts_with(name)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn encrypted_images_are_those_of_the_reference() {
    const SECRET: [&str; 2] = ["--object", "secret,id=s,data=0123456789abcdef"];
    let bench = Bench::new();
    for (format, list) in ENCRYPTED {
        let make = |name| [&["create"], SECRET.as_slice(), &["-f", format, "-o", list, name, "3M"]].concat();
        let (said, own) = (bench.instar(&make("x")), bench.reference(&make("y")));
        assert_eq!(said.code, Some(0), "{list}: {said}");
        assert_eq!(said.stdout.replace("'x'", "'y'"), own.stdout, "{list}");
        let key = if format == "luks" { "key-secret" } else { "encrypt.key-secret" };
        let described = |name| format!("driver={format},{key}=s,file.filename={name}");
        let info = |name| {
            let info = bench
                .reference(&[&["info"], SECRET.as_slice(), &["--image-opts", &described(name)]].concat());
            assert_eq!(info.code, Some(0), "{list}: {info}");
            settle_keys(&info.stdout)
        };
        assert_eq!(info("x"), info("y"), "{list}");
        // What is written into it can be read again.
        let opened = described("x");
        let compare = [&["compare"], SECRET.as_slice(), &["--image-opts", &opened, &opened]].concat();
        assert_eq!(bench.reference(&compare).code, Some(0), "{list}");
        let length = |name| fs::metadata(bench.path(name)).unwrap().len();
        assert_eq!(length("x"), length("y"), "{list}");
        fs::remove_file(bench.path("x")).unwrap();
        fs::remove_file(bench.path("y")).unwrap();
    }
}

/// Iterations of the first key slot.
fn iterations(bench: &Bench, image: &str) -> u64 {
    let info = bench.reference(&["info", "--output", "json", image]);
    let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
    info["format-specific"]["data"]["slots"][0]["iters"].as_u64().unwrap()
}

#[test]
fn a_password_is_worth_the_time_that_was_asked_for() {
    let bench = Bench::new();
    let make = |time: &str, name: &str| {
        let list = format!("key-secret=s,iter-time={time}");
        bench.instar(&[
            "create",
            "-q",
            "--object",
            "secret,id=s,data=a",
            "-f",
            "luks",
            "-o",
            &list,
            name,
            "1M",
        ])
    };
    assert_eq!(make("0", "least").code, Some(0));
    assert_eq!(iterations(&bench, "least"), 1000);
    assert_eq!(make("20", "short").code, Some(0));
    assert_eq!(make("320", "long").code, Some(0));
    let (short, long) = (iterations(&bench, "short"), iterations(&bench, "long"));
    // Other processes may have had the processor.
    assert!(short > 1000 && long > short * 3, "{short}, {long}");
    for (time, message) in [("-1", "too large to scale"), ("9999999999", "larger than 4294967295")] {
        let said = make(time, "never");
        assert!(said.code == Some(1) && said.stderr.contains(message), "{said}");
    }
    // What would take instar itself too long to unlock.
    let said = make("100000", "never");
    assert!(said.code == Some(1) && said.stderr.contains("takes more than 268435456 iterations"), "{said}");
    assert!(!bench.path("never").exists());
}

#[test]
fn no_encrypted_qcow_image_is_made() {
    let bench = Bench::new();
    let list = "encryption=on,encrypt.key-secret=s";
    let line = ["create", "--object", "secret,id=s,data=abc", "-f", "qcow", "-o", list, "x", "1M"];
    let said = bench.instar(&line);
    assert!(said.code == Some(1) && said.stderr.contains("(unsupported)"), "{said}");
    assert!(!bench.path("x").exists());
}

#[test]
fn a_file_that_may_not_grow_is_not_left_half() {
    let bench = Bench::new();
    fs::create_dir(bench.path("small")).unwrap();
    let limit = "ulimit -f 1024; exec ./qemu-img create -f raw -o preallocation=full small/x 8M";
    let said = Said::by(bench.command("sh").args(["-c", limit]));
    assert_ne!(said.code, Some(0), "{said}");
    assert_eq!(fs::read_dir(bench.path("small")).unwrap().count(), 0);
}

#[test]
fn a_data_file_that_is_kept_stays_as_it_is() {
    let bench = Bench::new();
    let content: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(bench.path("data"), &content).unwrap();
    let profile = ["--qemu-version", "11.1"];
    let make = |list: &str| {
        let list = format!("keep_data_file=on,{list}");
        bench.instar(
            &[&["create"], profile.as_slice(), &["-q", "-f", "qcow2", "-o", &list, "x", "3M"]].concat(),
        )
    };
    for (list, why) in [
        ("data_file=data", "requires 'preallocation=metadata' or 'data_file_raw=on'"),
        ("data_file=data,preallocation=full", "would overwrite the external data file's content"),
        ("cluster_size=4k", "Must not use 'keep_data_file=on' without 'data_file'"),
        ("data_file=missing,data_file_raw=on", "x: Could not open 'missing': No such file or directory"),
        ("data_file=data,data_file_raw=on,cluster_size=3", "Cluster size must be"),
    ] {
        let said = make(list);
        assert!(said.code == Some(1) && said.stderr.contains(why), "{list}: {said}");
        assert!(
            fs::read(bench.path("data")).unwrap() == content && !bench.path("missing").exists(),
            "{list}"
        );
    }
    for list in ["data_file=data,data_file_raw=on", "data_file=data,preallocation=metadata"] {
        let said = make(list);
        assert_eq!(said.code, Some(0), "{list}: {said}");
        assert!(fs::read(bench.path("data")).unwrap() == content, "{list}");
        let compared = bench.reference(&["compare", "-f", "raw", "-F", "qcow2", "data", "x"]);
        assert_eq!(compared.code, Some(0), "{list}: {compared}");
    }
    let line = ["convert", "--qemu-version", "11.1", "-O", "qcow2", "-o"];
    let list = "keep_data_file=on,data_file=data,data_file_raw=on";
    let said = bench.instar(&[line.as_slice(), &[list, "data", "y"]].concat());
    assert!(said.code == Some(1) && said.stderr.contains("(unsupported)"), "{said}");
    assert!(fs::read(bench.path("data")).unwrap() == content && !bench.path("y").exists());
}
