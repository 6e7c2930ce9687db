//! Images that are described in place of named (`--image-opts`, `json:`), against the real `qemu-img`.

mod common;

use common::{Bench, settle};

/// A qcow2 image, one with a backing file, and that file.
fn images() -> Bench {
    let bench = Bench::new();
    std::fs::write(bench.path("data.raw"), vec![1; 1 << 20]).unwrap();
    bench.make(&["convert", "-O", "qcow2", "data.raw", "a.qcow2"]);
    bench.make(&["create", "-q", "-f", "qcow2", "-b", "data.raw", "-F", "raw", "top.qcow2", "10M"]);
    settle(bench.directory());
    bench
}

#[test]
fn descriptions_are_read_as_qemu_img_reads_them() {
    let bench = images();
    let mut rows = Vec::new();
    for options in [
        "driver=qcow2,file.filename=a.qcow2",
        "file.filename=a.qcow2",
        "filename=a.qcow2",
        "driver=file,filename=a.qcow2",
        "driver=raw,file.filename=a.qcow2",
        "driver=raw,file.driver=file,file.filename=a.qcow2",
        "driver=qcow2,file.driver=raw,file.file.filename=a.qcow2",
        "driver=qcow2,file=a.qcow2",
        "driver=qcow2",
        "a.qcow2",
        "driver=qcow2,file.filename=a.qcow2,foo=bar",
        "driver=qcow2,file.filename=a.qcow2,file.foo=bar",
        "driver=qcow2,file.filename=a.qcow2,read-only=maybe",
        "driver=qcow2,file.filename=a.qcow2,read-only=on,cache.direct=off,node-name=x,file.locking=auto",
        "driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=data.raw",
        "driver=raw,offset=512,size=1024,file.filename=data.raw",
        "driver=raw,file.driver=raw,file.offset=512,file.file.filename=data.raw",
        "driver=raw,offset=5,size=1024,file.filename=data.raw",
        "driver=raw,offset=512k,file.filename=data.raw",
        "driver=raw,offset=1048577,file.filename=data.raw",
        "driver=raw,size=2M,file.filename=data.raw",
        "driver=raw,size=1000,file.filename=data.raw",
        "driver=raw,size=x,file.filename=data.raw",
        "driver=qcow2,size=1k,file.filename=a.qcow2",
        "driver=nosuch,file.filename=a.qcow2",
        "driver=qcow2,file.filename=none",
        "driver=qcow2,file.filename=nbd://x/",
        "driver=qcow2,file.filename=data.raw",
        "driver=raw,file.filename=.",
        "driver=qcow2,,x,file.filename=a.qcow2",
        "driver",
        ",",
        "",
    ] {
        for target in ["raw", "qcow2"] {
            rows.push(vec!["measure", "-O", target, "--image-opts", options]);
        }
    }
    for name in [
        r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}"#,
        r#"json:{"driver":"qcow2","file.filename":"a.qcow2"}"#,
        r#"json:{"file.filename":"a.qcow2"}"#,
        r#"json:{"filename":"a.qcow2"}"#,
        r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"},"backing":null}"#,
        r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"},"foo":1}"#,
        r#"json:{"driver":"raw","size":512,"file":{"filename":"data.raw"}}"#,
        "json:[]",
    ] {
        rows.push(vec!["measure", "-O", "qcow2", name]);
        rows.push(vec!["measure", "-O", "qcow2", "-f", "raw", name]);
    }
    rows.push(vec!["measure", "--image-opts", "-f", "raw", "driver=raw,file.filename=data.raw"]);
    bench.assert_same(&rows);
}

#[test]
fn what_leads_to_no_local_file_is_refused() {
    let bench = images();
    for (options, why) in [
        ("driver=qcow2,file.driver=nbd,file.host=localhost", "Driver 'nbd' is not supported in this place"),
        (
            "driver=qcow2,file.driver=qcow2,file.file.filename=a.qcow2",
            "Driver 'qcow2' is not supported in this place",
        ),
    ] {
        let said = bench.instar(&["measure", "--image-opts", options]);
        assert_eq!(said.stderr, format!("instar: Could not open '{options}': {why} (usage)\n"));
        assert_eq!(said.code, Some(1));
    }
    let said = bench.instar(&["measure", "json:{"]);
    assert!(said.stderr.starts_with("instar: Could not open 'json:{': Could not parse the JSON options: "));
}
