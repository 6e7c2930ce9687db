//! Raw images that are created and written.

mod support;

use formats::raw::{self, Create};
use formats::write::Writer;
use support::Random;
use support::write::{Disk, assert_holds, new_file, old_file};

#[test]
fn a_raw_image_is_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.raw");
    let mut random = Random(1);
    for size in [512, 65_535] {
        let mut writer = raw::create(new_file(&path), &Create { size }).unwrap();
        let size = usize::try_from(size).unwrap().next_multiple_of(512);
        assert_eq!(writer.virtual_size(), size as u64);
        let mut disk = Disk { bytes: vec![0; size], unit: 512 };
        disk.scribble(&mut writer, &mut random);
        assert_eq!(std::fs::read(&path).unwrap(), disk.bytes);
        disk.scribble(&mut raw::open(old_file(&path)).unwrap(), &mut random);
        assert_holds(&path, "raw", &disk.bytes);
    }
    assert!(raw::create(Vec::new(), &Create { size: 1 << 63 }).is_err());
}

#[test]
fn a_file_that_ends_within_a_sector_is_made_whole() {
    let mut writer = raw::open(vec![1; 513]).unwrap();
    assert_eq!(writer.virtual_size(), 1024);
    writer.zero(512, 512).unwrap();
    assert!(writer.allocate(1, 512).is_err());
    assert!(writer.allocate(512, 1024).is_err());
    writer.finish().unwrap();
    let file = support::write::own(&mut writer);
    assert_eq!((file.len(), file[511], file[512]), (1024, 1, 0));
}
