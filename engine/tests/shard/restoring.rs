//! A backup of a group begins a second life: everything is there, and positions go on above.

use switchboard_engine::{
    CheckpointError, GatewayKind, ImportError, InitCluster, META_GROUP, Placement, RegisterGateway,
    Reply, Restoration, Rules, SetNode, SetPlacement, Shard, ShardOptions,
};

use crate::support::{Driver, GROUP, Replica, claim, claimed, device, enqueue, enqueued};

fn exported(shard: &Shard) -> Vec<u8> {
    let mut bytes = Vec::new();
    shard.export(&mut bytes).expect("exported");
    bytes
}

fn restoration(generation: u8) -> Restoration {
    Restoration { generation, membership: b"members".as_slice().into(), cluster_id: [9; 16] }
}

#[test]
fn a_restored_shard_has_every_message_and_hands_out_higher_positions() {
    let from = Replica::new(1, ShardOptions::default());
    let mut driver = Driver::begin(&[&from], Rules::default());
    let bob = device("bob", 1);
    for n in 0..20 {
        driver.one(&[&from], enqueue("bob", 1, n, format!("message {n}")));
    }
    let bytes = exported(&from.shard);
    let (header, stats) = Shard::verify_export(GROUP, &mut &bytes[..]).expect("sound");
    assert_eq!((header.at, header.generation), (from.shard.applied(), 0));
    assert_eq!((stats.users, stats.messages), (1, 20));

    // What was handed out after the backup is lost with the old cluster, but was seen by clients.
    let lost = enqueued(driver.one(&[&from], enqueue("bob", 1, 99, "after the backup")));
    let lost_epoch = claimed(driver.one(&[&from], claim(&bob, 1))).epoch;

    let to = Replica::new(2, ShardOptions::default());
    to.shard.restore(&mut &bytes[..], &restoration(1)).expect("restored");
    let to = to.after_power_cut();
    assert_eq!(to.fetch(&bob).messages.len(), 20);
    for (found, n) in to.fetch(&bob).messages.iter().zip(0..) {
        assert_eq!(found.body, format!("message {n}").as_bytes());
    }
    let membership = to.shard.membership().expect("members");
    assert_eq!((Some(membership.0), &membership.1[..]), (header.at, &b"members"[..]));

    driver.skip_to(&to);
    let next = enqueued(driver.one(&[&to], enqueue("bob", 1, 100, "the next")));
    assert!(next.stored[0].seq > lost.stored[0].seq);
    assert!(claimed(driver.one(&[&to], claim(&bob, 1))).epoch > lost_epoch);
}

#[test]
fn a_restored_meta_group_has_no_nodes_and_higher_incarnations() {
    let from = Replica::of_group(3, META_GROUP);
    let mut driver = Driver::new();
    let init = InitCluster { cluster_id: [1; 16], shards: 4, generation: 3 };
    driver.one(&[&from], switchboard_engine::Command::InitCluster(init));
    let set = SetNode { node_id: 1, address: "a:1".to_owned(), disk_id: [1; 16] };
    driver.one(&[&from], switchboard_engine::Command::SetNode(set));
    let placed = SetPlacement { shard: 2, replicas: vec![1] };
    driver.one(&[&from], switchboard_engine::Command::SetPlacement(placed));
    from.shard.meta(|meta| assert!(!meta.placement().names(2, 7)));
    let register = || {
        switchboard_engine::Command::RegisterGateway(RegisterGateway {
            name: "gateway".to_owned(),
            address: "g:1".to_owned(),
            kind: GatewayKind::Gateway,
        })
    };
    let registered = |reply| match reply {
        Reply::Registered(registered) => registered,
        other => panic!("{other:?}"),
    };
    let before = registered(driver.one(&[&from], register()));
    let bytes = exported(&from.shard);
    let later = registered(driver.one(&[&from], register()));

    let to = Replica::of_group(4, META_GROUP);
    to.shard.restore(&mut &bytes[..], &restoration(4)).expect("restored");
    to.shard.meta(|meta| {
        assert_eq!(meta.cluster().map(|c| (c.cluster_id, c.shards)), Some(([9; 16], 4)));
        assert_eq!(meta.nodes().count(), 0);
        // Where replicas were in the old cluster must not end one in the new.
        assert_eq!(meta.placement(), &Placement::default());
        assert!(meta.placement().names(2, 7));
        assert!(meta.has_ended(before.gateway_id, before.incarnation));
    });
    driver.skip_to(&to);
    let again = registered(driver.one(&[&to], register()));
    assert_eq!(again.gateway_id, before.gateway_id);
    assert!(again.incarnation > later.incarnation);
}

#[test]
fn a_restoration_without_a_higher_generation_or_into_a_used_group_is_refused() {
    let from = Replica::new(5, ShardOptions::default());
    Driver::begin(&[&from], Rules::default());
    let bytes = exported(&from.shard);
    let to = Replica::new(6, ShardOptions::default());
    for generation in [0, 128] {
        let refused = to.shard.restore(&mut &bytes[..], &restoration(generation));
        assert!(matches!(refused, Err(ImportError::Generation { .. })), "{refused:?}");
    }
    let refused = from.shard.restore(&mut &bytes[..], &restoration(1));
    assert!(matches!(refused, Err(ImportError::Behind { .. })), "{refused:?}");
}

/// Whether the disk fills at the first byte that is written or at the last one.
#[test]
fn a_restore_or_import_that_finds_no_room_leaves_nothing_behind() {
    let from = Replica::new(8, ShardOptions::default());
    let mut driver = Driver::begin(&[&from], Rules::default());
    for n in 0..20 {
        driver.one(&[&from], enqueue("bob", 1, n, vec![n as u8; 5_000]));
    }
    let bytes = exported(&from.shard);
    let beside_the_log = |replica: &Replica| -> Vec<_> {
        let paths = replica.files.paths().into_iter();
        paths.filter(|path| path.extension().is_none_or(|end| end != "log")).collect()
    };
    let restore = |to: &Shard| to.restore(&mut &bytes[..], &restoration(1));
    let import = |to: &Shard| to.import(&mut &bytes[..]);
    for take in [&restore as &dyn Fn(&Shard) -> Result<(), ImportError>, &import] {
        let to = Replica::new(9, ShardOptions::default());
        let before = beside_the_log(&to);
        let mut refused = 0;
        for room in (0..).step_by(4_096) {
            to.files.set_capacity(Some(to.files.used() + room));
            if take(&to.shard).is_ok() {
                break;
            }
            assert_eq!(beside_the_log(&to), before, "after {room} bytes");
            refused += 1;
        }
        assert!(refused > bytes.len() / 4_096, "{refused} tries without room");
        assert_eq!(to.fetch(&device("bob", 1)).messages.len(), 20);
    }
}

/// A mark of a checkpoint behind the log's end of a replica would be the first word of the next one there.
#[test]
fn a_replica_that_is_about_to_go_writes_nothing_any_more() {
    let replica = Replica::new(7, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let bytes = exported(&replica.shard);
    driver.one(&[&replica], enqueue("bob", 1, 1, "a message"));
    let before = replica.shard.checkpoint_meta().map(|meta| meta.at);
    replica.shard.end();
    let refused = replica.shard.checkpoint();
    assert!(matches!(refused, Err(CheckpointError::Ended)), "{refused:?}");
    let refused = replica.shard.import(&mut &bytes[..]);
    assert!(matches!(refused, Err(ImportError::Checkpoint(CheckpointError::Ended))), "{refused:?}");
    assert_eq!(replica.shard.checkpoint_meta().map(|meta| meta.at), before);
}
