//! The simulated disk is believed by every crash test, so it is tested itself.

use super::super::DIRECT_ALIGN_BYTES;
use super::*;

fn dir() -> &'static Path {
    Path::new("/d")
}

fn disk_with_file(seed: u64) -> (SimFiles, PathBuf, Arc<dyn FileHandle>) {
    let disk = SimFiles::new(seed);
    disk.create_dir_all(dir()).unwrap();
    let path = dir().join("f");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    (disk, path, file)
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..50 {
        let (disk, path, file) = disk_with_file(seed);
        file.write_at(&[1; 2000], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir()).unwrap();
        file.write_at(&[2; 1000], 512).unwrap();
        disk.power_cut();
        let content = disk.content(&path).unwrap();
        assert_eq!(content.len(), 2000, "seed {seed}");
        assert!(content[..512].iter().chain(&content[1536..]).all(|b| *b == 1), "seed {seed}");
    }
}

#[test]
fn unsynced_sectors_are_lost_torn_or_kept() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (disk, path, file) = disk_with_file(seed);
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir()).unwrap();
        file.write_at(&[2; 1024], 0).unwrap();
        disk.power_cut();
        let content = disk.content(&path).unwrap();
        outcomes.insert((content[0], content[512]));
    }
    assert_eq!(outcomes.len(), 4, "every mixture of old and new occurs: {outcomes:?}");
}

#[test]
fn an_unsynced_name_may_vanish_and_an_unsynced_rename_is_atomic() {
    let (mut kept, mut lost) = (false, false);
    for seed in 0..50 {
        let (disk, path, file) = disk_with_file(seed);
        file.write_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir()).unwrap();
        let other = dir().join("g");
        disk.rename(&path, &other).unwrap();
        disk.power_cut();
        match disk.paths().as_slice() {
            [only] if *only == path => lost = true,
            [only] if *only == other => kept = true,
            paths => panic!("seed {seed}: {paths:?}"),
        }
    }
    assert!(kept && lost);
}

#[test]
fn a_failed_sync_reports_once_and_forgets() {
    let mut lost = false;
    for seed in 0..50 {
        let (disk, path, file) = disk_with_file(seed);
        file.write_at(&[1; 512], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir()).unwrap();
        file.write_at(&[2; 512], 0).unwrap();
        disk.fail_sync_at(0);
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_ok(), "the second sync passes although nothing was written");
        disk.power_cut();
        lost |= disk.content(&path).unwrap()[0] == 1;
    }
    assert!(lost, "what a failed sync lost stays lost");
}

#[test]
fn a_crash_stops_everything_until_the_restart_and_ends_handles_and_locks() {
    let (disk, path, file) = disk_with_file(1);
    let lock = disk.lock(&dir().join("lock")).unwrap();
    assert_eq!(
        disk.lock(&dir().join("lock")).unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "the lock is held"
    );
    disk.crash_at(disk.operations() + 1);
    assert!(file.write_at(b"x", 0).is_err());
    assert!(disk.open(&path, OpenMode::Read).is_err());
    disk.kill();
    assert!(file.sync_data().is_err(), "a handle from before the crash is dead");
    let again = disk.lock(&dir().join("lock")).unwrap();
    drop(lock);
    assert!(disk.lock(&dir().join("lock")).is_err(), "dropping a dead lock frees nothing");
    drop(again);
}

#[test]
fn a_full_disk_refuses_growth_but_not_overwriting() {
    let (disk, _, file) = disk_with_file(1);
    disk.set_capacity(Some(1000));
    file.write_at(&[1; 1000], 0).unwrap();
    assert_eq!(file.write_at(&[1; 2], 999).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_at(&[2; 1000], 0).unwrap();
    assert_eq!(disk.space_free(dir()).unwrap(), 0);
}

#[test]
#[should_panic(expected = "while 1 maps of it were alive")]
fn writing_a_mapped_file_is_noticed() {
    let (_disk, _, file) = disk_with_file(1);
    file.write_at(b"abc", 0).unwrap();
    let part = file.map().unwrap().slice(1..);
    let _ = file.write_at(b"x", 0);
    drop(part);
}

#[test]
fn a_direct_write_is_durable_alone_and_refuses_what_is_not_aligned() {
    let memory = vec![2; 3 * DIRECT_ALIGN_BYTES];
    let block = &memory[memory.as_ptr().align_offset(DIRECT_ALIGN_BYTES)..][..DIRECT_ALIGN_BYTES];
    let mut others = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let (disk, path, file) = disk_with_file(seed);
        file.write_at(&[1; 2 * DIRECT_ALIGN_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir()).unwrap();
        file.write_at(&[3; 512], 0).unwrap();
        let direct = disk.open(&path, OpenMode::WriteDirect).unwrap();
        direct.write_durable(block, DIRECT_ALIGN_BYTES as u64).unwrap();
        for (bytes, at) in [(block, 512), (&block[..512], 0), (&memory[1..513], 0)] {
            let refused = direct.write_durable(bytes, at).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
        disk.power_cut();
        let content = disk.content(&path).unwrap();
        assert_eq!(&content[DIRECT_ALIGN_BYTES..], block, "seed {seed}");
        others.insert(content[0]);
    }
    assert_eq!(others.len(), 2, "what another handle wrote is not synced by it");
}

#[test]
fn a_direct_write_that_fails_or_is_cut_off_may_be_torn() {
    let memory = vec![2; 2 * DIRECT_ALIGN_BYTES];
    let block = &memory[memory.as_ptr().align_offset(DIRECT_ALIGN_BYTES)..][..DIRECT_ALIGN_BYTES];
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (disk, path, file) = disk_with_file(seed);
        file.write_at(&[1; DIRECT_ALIGN_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir()).unwrap();
        let direct = disk.open(&path, OpenMode::WriteDirect).unwrap();
        if seed % 2 == 0 {
            disk.crash_at(disk.operations() + 1 + seed / 2 % 2);
        } else {
            disk.fail_sync_at(disk.operations() + 1);
        }
        direct.write_durable(block, 0).unwrap_err();
        disk.power_cut();
        let content = disk.content(&path).unwrap();
        outcomes.insert((seed % 2, content[0], content[512]));
    }
    assert_eq!(outcomes.len(), 8, "every mixture of old and new occurs: {outcomes:?}");
}
