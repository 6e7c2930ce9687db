//! Extents on their way to the host: any text is extents or is refused, and extents are written in one way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{MapError, MapKind, MapReader, MapRun, MapWriter};

fuzz_target!(|runs: &str| {
    let kind = |file: Option<&str>| MapKind {
        depth: 0,
        present: true,
        zero: false,
        data: true,
        compressed: false,
        file: file.map(Into::into),
    };
    let kinds = [kind(Some("source")), kind(None)];
    let read: Result<Vec<MapRun>, MapError> = MapReader::new(&kinds, runs).collect();
    if let Ok(read) = read {
        let mut writer = MapWriter::default();
        for run in read {
            writer.push(run, kinds[run.kind].file.is_some());
        }
        assert_eq!(writer.finish(), runs);
    }
});
