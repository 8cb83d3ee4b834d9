//! What a checkpoint, a restart and an export must not lose.

use switchboard_engine::{
    Command, EntryPayload, ImportError, LogId, Rules, Shard, ShardOptions, Status,
    fs::sim::TouchKind, log::Record,
};

use crate::support::{Driver, GROUP, Replica, ack, claim, claimed, device, enqueue, enqueued};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn purging() -> ShardOptions {
    ShardOptions { purge_after_checkpoint: true }
}

#[test]
fn a_restart_replays_what_was_committed() {
    let replica = Replica::new(1, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let bob = device("bob", 1);
    let epoch = claimed(driver.one(&[&replica], claim(&bob, 5))).epoch;
    let first = enqueued(driver.one(&[&replica], enqueue("bob", 0, 1, "one")));
    driver.one(&[&replica], enqueue("bob", 0, 2, "two"));
    driver.one(&[&replica], ack(&bob, epoch, first.stored[0].seq));
    let (page, hash) = (replica.fetch(&bob), replica.shard.state_hash());
    let replica = replica.reopened();
    assert_eq!(replica.shard.state_hash(), hash);
    assert_eq!(replica.fetch(&bob), page);
    assert_eq!(page.messages[0].body, "two");
    assert_eq!(replica.shard.locate(b"bob").sessions[0].epoch, epoch);
}

#[test]
fn bodies_outlive_the_log_that_wrote_them() {
    let mut replica = Replica::new(2, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let bob = device("bob", 1);
    for round in 0..5_u64 {
        for number in 0..20 {
            let body = format!("round {round} number {number}");
            driver.one(&[&replica], enqueue("bob", 0, round * 100 + number, body));
        }
        // Half of what waits goes, so that old files become worth rewriting.
        let page = replica.fetch(&bob);
        let middle = page.messages[page.messages.len() / 2].seq;
        driver.one(&[&replica], ack(&bob, 0, middle));
        let before = replica.fetch(&bob);
        let at = replica.shard.checkpoint().expect("checkpoint");
        assert_eq!(replica.log.group_state(GROUP).purged, Some(at));
        assert_eq!(replica.fetch(&bob), before, "moved, and readable where it is now");
        replica = replica.reopened();
        assert_eq!(replica.fetch(&bob), before, "and after a restart");
    }
}

#[test]
fn files_of_old_bodies_go_when_nothing_in_them_waits() {
    let replica = Replica::new(3, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let old_files = |replica: &Replica| {
        let paths = replica.files.paths();
        paths.iter().filter(|path| path.extension().is_some_and(|e| e == "old")).count()
    };
    driver.one(&[&replica], enqueue("bob", 0, 1, "waits"));
    driver.one(&[&replica], enqueue("eve", 0, 2, "expires"));
    replica.shard.checkpoint().expect("checkpoint");
    assert_eq!(old_files(&replica), 1, "both expire on one day");
    driver.one(&[&replica], ack(&device("bob", 1), 0, u64::MAX));
    driver.now_ms += 31 * DAY_MS;
    driver.one(&[&replica], enqueue("bob", 0, 3, "later"));
    replica.shard.checkpoint().expect("checkpoint");
    assert_eq!(old_files(&replica), 1, "only the later message's");
    assert!(replica.fetch(&device("eve", 1)).messages.is_empty());
    assert_eq!(replica.fetch(&device("bob", 1)).messages[0].body, "later");
}

#[test]
fn a_send_to_many_devices_keeps_one_record() {
    let replica = Replica::new(4, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    for number in 1..=4 {
        claimed(driver.one(&[&replica], claim(&device("bob", number), 1)));
    }
    let sent = enqueued(driver.one(&[&replica], enqueue("bob", 0, 1, vec![9; 1000])));
    assert_eq!(sent.stored.len(), 4);
    replica.shard.checkpoint().expect("checkpoint");
    let written: usize = replica
        .files
        .paths()
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "old"))
        .map(|path| replica.files.content(path).expect("there").len())
        .sum();
    assert!(written < 2 * 1000, "{written} bytes for one body");
    for number in 1..=4 {
        assert_eq!(replica.fetch(&device("bob", number)).messages[0].body, vec![9; 1000]);
    }
}

#[test]
fn an_export_is_the_same_state_on_another_disk() {
    let from = Replica::new(5, purging());
    let mut driver = Driver::begin(&[&from], Rules::default());
    let bob = device("bob", 1);
    claimed(driver.one(&[&from], claim(&device("bob", 2), 3)));
    for number in 0..50 {
        driver.one(&[&from], enqueue("bob", 0, number, vec![3; number as usize * 10]));
        if number == 25 {
            from.shard.checkpoint().expect("checkpoint");
        }
    }
    let mut bytes = Vec::new();
    from.shard.export(&mut bytes).expect("export");
    let header = Shard::read_export_header(&mut &bytes[..]).expect("header");
    assert_eq!(header.at, from.shard.applied());

    let to = Replica::new(6, purging());
    to.shard.import(&mut &bytes[..]).expect("import");
    assert_eq!(to.shard.state_hash(), from.shard.state_hash());
    assert_eq!(to.fetch(&bob), from.fetch(&bob));
    let meta = to.shard.checkpoint_meta().expect("durable");
    assert_eq!(Some(meta.at), header.at);
    // A repeat is still known to be one.
    let at = LogId::new(2, header.at.expect("applied").index + 1);
    let purge = Record::Purge { group: GROUP, upto: header.at.expect("applied") };
    to.log.append_wait(vec![purge]).expect("purge");
    let mut entry = switchboard_engine::EntryBuilder::new(driver.now_ms);
    entry.push(&enqueue("bob", 0, 7, "again")).expect("fits");
    let payload = EntryPayload::Commands(entry.finish());
    let again = enqueued(to.append(at, &payload).remove(0));
    assert_eq!(again.status, Status::Duplicate);
    let hash = to.shard.state_hash();
    assert_eq!(to.reopened().shard.state_hash(), hash);
}

#[test]
fn a_cut_or_damaged_export_changes_nothing() {
    let from = Replica::new(7, ShardOptions::default());
    let mut driver = Driver::begin(&[&from], Rules::default());
    driver.one(&[&from], enqueue("bob", 0, 1, "body"));
    let mut bytes = Vec::new();
    from.shard.export(&mut bytes).expect("export");
    let to = Replica::new(8, ShardOptions::default());
    let before = to.shard.state_hash();
    for end in 0..bytes.len() {
        assert!(to.shard.import(&mut &bytes[..end]).is_err(), "cut at {end}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        assert!(to.shard.import(&mut &damaged[..]).is_err(), "damaged at {at}");
    }
    assert_eq!(to.shard.state_hash(), before);
}

/// Power goes at every operation of an import in turn: the state is the old one or the new one, whole.
#[test]
fn an_import_cut_off_by_a_power_cut_is_all_or_nothing() {
    let source = Replica::new(20, ShardOptions::default());
    let mut driver = Driver::begin(&[&source], Rules::default());
    for number in 0..20 {
        driver.one(&[&source], enqueue("bob", 1, number, vec![number as u8; 5_000]));
    }
    let mut export = Vec::new();
    source.shard.export(&mut export).expect("export");
    let expected = source.fetch(&device("bob", 1));
    let mut outcomes = [0, 0];
    for step in 1.. {
        let target = Replica::new(step, ShardOptions::default());
        let mut driver = Driver::begin(&[&target], Rules::default());
        driver.one(&[&target], enqueue("carol", 1, 1, "before"));
        let before = target.shard.state_hash();
        target.files.crash_at(target.files.operations() + step);
        let imported = target.shard.import(&mut &export[..]).is_ok();
        let target = target.after_power_cut();
        if target.shard.state_hash() == before {
            assert!(!imported, "an import that was answered is gone after {step} operations");
            assert_eq!(target.fetch(&device("carol", 1)).messages.len(), 1);
            outcomes[0] += 1;
        } else {
            assert_eq!(target.shard.state_hash(), source.shard.state_hash(), "at {step}");
            assert_eq!(target.fetch(&device("bob", 1)), expected);
            outcomes[1] += 1;
        }
        if imported {
            break;
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

/// A leader takes back what an older one had sent, then sends its state: whoever has that state must not have
/// the entries back, which stand where its own would.
#[test]
fn after_a_power_cut_no_imported_state_has_entries_behind_it_that_were_taken_back_before() {
    let source = Replica::new(20, ShardOptions::default());
    let mut driver = Driver::begin(&[&source], Rules::default());
    driver.one(&[&source], enqueue("bob", 1, 1, "of the state"));
    let mut export = Vec::new();
    source.shard.export(&mut export).expect("export");
    let at = source.shard.applied().expect("applied");
    for step in 1.. {
        let target = Replica::new(step, ShardOptions::default());
        Driver::begin(&[&target], Rules::default());
        let first = target.shard.applied().expect("applied");
        let older = (first.index + 1..first.index + 10).map(|index| Record::Entry {
            group: GROUP,
            log_id: LogId::new(0, index),
            payload: EntryPayload::Blank,
        });
        target.log.append_wait(older.collect()).expect("append");
        let taken_back = Record::Truncate { group: GROUP, after: Some(first) };
        target.log.append(vec![taken_back], Box::new(|_| ()));
        target.files.crash_at(target.files.operations() + step);
        let imported = target.shard.import(&mut &export[..]).is_ok();
        let target = target.after_power_cut();
        if target.shard.applied() == Some(at) {
            let last = target.log.group_state(GROUP).last;
            assert_eq!(last, Some(first), "power went at operation {step}");
        }
        if imported {
            break;
        }
    }
}

#[test]
fn an_import_from_before_the_last_entry_applied_is_refused() {
    let (ahead, behind) = (Replica::new(40, purging()), Replica::new(41, purging()));
    let mut driver = Driver::begin(&[&ahead, &behind], Rules::default());
    driver.one(&[&ahead, &behind], enqueue("bob", 1, 1, "one"));
    let mut export = Vec::new();
    behind.shard.export(&mut export).expect("export");
    driver.one(&[&ahead], enqueue("bob", 1, 2, "two"));
    let before = ahead.shard.state_hash();
    let refused = ahead.shard.import(&mut &export[..]).expect_err("from before");
    assert!(matches!(refused, ImportError::Behind { .. }), "{refused}");
    assert_eq!(ahead.shard.state_hash(), before);
    assert_eq!(ahead.shard.checkpoint_meta(), None);
    // One that ends where this replica stands is as good.
    behind.shard.import(&mut &export[..]).expect("import");
}

/// Puts the CRC of every section right again.
fn with_right_crcs(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 9;
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().expect("four"));
        let end = at + 9 + len as usize;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[at..at + 5]);
        crc.update(&bytes[at + 9..end]);
        let crc = crc.finalize().to_le_bytes();
        bytes[at + 5..at + 9].copy_from_slice(&crc);
        at = end;
    }
    bytes
}

#[test]
fn positions_from_after_the_last_entry_are_refused() {
    let from = Replica::new(42, ShardOptions::default());
    let mut driver = Driver::begin(&[&from], Rules::default());
    let epoch = claimed(driver.one(&[&from], claim(&device("bob", 1), 1))).epoch;
    let seq = enqueued(driver.one(&[&from], enqueue("bob", 1, 1, "one"))).stored[0].seq;
    let mut export = Vec::new();
    from.shard.export(&mut export).expect("export");
    let to = Replica::new(43, ShardOptions::default());
    // Behind the header, which says where all of it stands.
    let header = u32::from_le_bytes(export[10..14].try_into().expect("four"));
    let users = 9 + 9 + header as usize;
    for position in [epoch, seq] {
        let found: Vec<usize> = (users..export.len() - 8)
            .filter(|at| export[*at..at + 8] == position.to_le_bytes())
            .collect();
        assert!(!found.is_empty());
        for at in found {
            let mut altered = export.clone();
            // The next entry's index, which has not been applied.
            altered[at..at + 8].copy_from_slice(&(seq + (1 << 16)).to_le_bytes());
            let refused = to.shard.import(&mut &with_right_crcs(altered)[..]);
            assert!(refused.is_err(), "{position} at byte {at}");
        }
    }
    assert_eq!(to.shard.applied(), None);
    to.shard.import(&mut &with_right_crcs(export)[..]).expect("as it was");
}

/// Makes the copy of `seq` that an export names as the `nth` expire a day later: another day of expiry is
/// another file.
fn a_day_later(export: &mut [u8], seq: u64, nth: usize) {
    let is_copy = |at: &usize| export[*at..at + 8] == seq.to_le_bytes();
    let at = (0..export.len() - 8).filter(is_copy).nth(nth).expect("a copy");
    let expires_at = at + 16..at + 24;
    let before = u64::from_le_bytes(export[expires_at.clone()].try_into().expect("eight"));
    export[expires_at].copy_from_slice(&(before + DAY_MS).to_le_bytes());
}

/// An import writes a record for each copy, and where one file ends and the next begins they part.
#[test]
fn copies_that_an_import_puts_into_different_files_all_stay() {
    let from = Replica::new(44, purging());
    let mut driver = Driver::begin(&[&from], Rules::default());
    driver.one(&[&from], claim(&device("bob", 2), 1));
    let seq = enqueued(driver.one(&[&from], enqueue("bob", 0, 1, "to both"))).stored[0].seq;
    let beside = enqueue("carol", 1, 2, vec![7; 1_000]);
    let beside = enqueued(driver.one(&[&from], beside)).stored[0].seq;
    let mut export = Vec::new();
    from.shard.export(&mut export).expect("export");
    a_day_later(&mut export, seq, 1);
    a_day_later(&mut export, beside, 0);

    let mut to = Replica::new(45, purging());
    to.shard.import(&mut &with_right_crcs(export)[..]).expect("import");
    driver.skip_to(&to);
    for round in 0..4 {
        for number in 1..=2 {
            assert_eq!(to.fetch(&device("bob", number)).messages.len(), 1, "device {number}");
        }
        if round == 1 {
            // Now most of what lies in the file with the second copy is dead, so it is rewritten.
            driver.one(&[&to], ack(&device("carol", 1), 0, beside));
        }
        driver.one(&[&to], Command::Tick);
        to.shard.checkpoint().expect("checkpoint");
        for number in 1..=2 {
            assert_eq!(to.fetch(&device("bob", number)).messages.len(), 1, "device {number}");
        }
        to.shard.export(&mut std::io::sink()).expect("all bodies are there");
        if round == 3 {
            to = to.reopened();
        }
    }
    assert_eq!(to.fetch(&device("bob", 2)).messages.len(), 1);
}

#[test]
fn one_long_lived_message_pins_no_part_of_the_log() {
    let replica = Replica::new(44, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    driver.one(&[&replica], enqueue("patient", 1, 0, "for thirty days"));
    let disk = |replica: &Replica, end: &str| -> usize {
        let paths = replica.files.paths();
        let of_kind = paths.iter().filter(|path| path.extension().is_some_and(|e| e == end));
        of_kind.map(|path| replica.files.content(path).expect("there").len()).sum()
    };
    for round in 0..40_u64 {
        for step in 0..25 {
            let short = |number| {
                let number = 1 + (round * 25 + step) * 20 + number;
                let Command::Enqueue(mut c) = enqueue("busy", 1, number, vec![7; 250]) else {
                    unreachable!()
                };
                c.ttl_ms = 1_000;
                Command::Enqueue(c)
            };
            driver.propose(&[&replica], &(0..20).map(short).collect::<Vec<_>>());
            driver.now_ms += 1_000;
        }
        replica.shard.checkpoint().expect("checkpoint");
        assert!(disk(&replica, "log") <= 4 * 256 * 1024, "the log is long in round {round}");
        assert!(disk(&replica, "old") <= 2 * 25 * 300, "old files pile up in round {round}");
    }
    assert_eq!(replica.fetch(&device("patient", 1)).messages[0].body, "for thirty days");
}

#[test]
fn a_file_of_which_little_waits_is_rewritten() {
    let replica = Replica::new(45, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let old = |replica: &Replica| -> usize {
        let paths = replica.files.paths();
        let files = paths.iter().filter(|path| path.extension().is_some_and(|e| e == "old"));
        files.map(|path| replica.files.content(path).expect("there").len()).sum()
    };
    for number in 0..10 {
        driver.one(&[&replica], enqueue("bob", 1, number, vec![number as u8; 10_000]));
    }
    replica.shard.checkpoint().expect("checkpoint");
    assert!(old(&replica) > 100_000);
    let page = replica.fetch(&device("bob", 1));
    driver.one(&[&replica], ack(&device("bob", 1), 0, page.messages[7].seq));
    // The first counts what is left, the second acts on it.
    replica.shard.checkpoint().expect("checkpoint");
    driver.one(&[&replica], enqueue("eve", 1, 100, "one more entry"));
    replica.shard.checkpoint().expect("checkpoint");
    assert!(old(&replica) < 25_000, "{} bytes for two messages", old(&replica));
    assert_eq!(replica.fetch(&device("bob", 1)).messages[..], page.messages[8..]);
}

#[test]
fn a_checkpoint_that_a_killed_process_named_takes_nothing_from_the_one_before() {
    for seed in 0..20 {
        let mut replica = Replica::new(seed, purging());
        let mut driver = Driver::begin(&[&replica], Rules::default());
        driver.one(&[&replica], enqueue("bob", 1, 1, "first"));
        replica.shard.checkpoint().expect("checkpoint");
        let bob = device("bob", 1);
        // The next checkpoint needs neither the id nor the body that this one has.
        driver.now_ms += Rules::default().dedup_horizon_ms + 1;
        driver.one(&[&replica], ack(&bob, 0, u64::MAX));
        driver.one(&[&replica], enqueue("bob", 1, 2, "second"));
        let hash = replica.shard.state_hash();
        // The process dies when the checkpoint has its name, and the machine soon after the restart.
        replica
            .files
            .watch(|touch| touch.kind == TouchKind::SyncDir && touch.path.ends_with("checkpoints"));
        replica.shard.checkpoint().expect_err("the process is gone");
        replica = replica.reopened().after_power_cut();
        assert_eq!(replica.shard.state_hash(), hash, "seed {seed}");
        assert_eq!(replica.fetch(&bob).messages[0].body, "second", "seed {seed}");
    }
}
