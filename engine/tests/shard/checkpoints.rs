//! What a checkpoint, a restart and an export must not lose.

use switchboard_engine::{LogId, Rules, Shard, ShardOptions, Status, log::Record};

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
    let payload = switchboard_engine::EntryPayload::Commands(entry.finish());
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
