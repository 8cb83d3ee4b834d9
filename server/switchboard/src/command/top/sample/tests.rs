//! What is counted, who leads, and what stays of who is silent.

use super::super::fixtures::{Made, look, silence};
use super::*;

#[test]
fn each_shard_is_counted_once_as_its_leader_tells_it() {
    let nodes = [Made::new(1).applied(100), Made::new(2).applied(90), Made::new(3).applied(110)];
    let sample = Sample::of(look(1, &nodes));
    let totals = &sample.totals;
    assert_eq!((totals.sessions, totals.messages), (20, 200), "not those of replicas 2 and 3");
    assert_eq!((totals.message_bytes, totals.connections), (200 * 256, Some(1_234)));
    assert_eq!((totals.nodes_up, totals.shards_with_leader, totals.moves), (3, 2, Some(1)));
    assert_eq!(sample.shards[0].lag, 20, "the last one committed less the slowest one applied");
    assert_eq!((sample.nodes[0].leads, sample.nodes[1].leads), (2, 0));
    assert_eq!((sample.nodes[0].messages_led, sample.nodes[2].messages_led), (200, 0));
    assert_eq!(sample.nodes[2].replicas, 2);
}

#[test]
fn without_a_leader_the_replica_counts_that_has_applied_most() {
    let nodes = [Made::new(1).silent(), Made::new(2).applied(90), Made::new(3).applied(70)];
    let sample = Sample::of(look(1, &nodes));
    assert_eq!((sample.totals.shards_with_leader, sample.totals.messages), (0, 180));
    assert_eq!((sample.shards[1].told_by, sample.shards[1].replicas_reachable), (2, 2));
    let alarms = sample.totals.alarms.join("\n");
    assert!(alarms.contains("node 1: unreachable"), "{alarms}");
    assert!(alarms.contains("shard 0: no leader"), "{alarms}");
}

#[test]
fn a_leader_without_a_majority_leads_nobody() {
    let nodes = [Made::new(1).applied(90), Made::new(2).silent(), Made::new(3).silent()];
    let sample = Sample::of(look(1, &nodes));
    assert_eq!((sample.totals.shards_with_leader, sample.nodes[0].leads), (0, 0));
}

#[test]
fn the_leader_of_the_newest_term_counts() {
    let nodes = [
        Made::new(1).applied(100).led_by(1, 4),
        Made::new(2).applied(90).led_by(2, 5),
        Made::new(3).applied(90).led_by(2, 5),
    ];
    let sample = Sample::of(look(1, &nodes));
    assert_eq!((sample.shards[0].leader, sample.shards[0].term), (2, 5));
}

#[test]
fn what_is_silent_keeps_its_last_figures_and_is_not_counted() {
    let first = Sample::of(look(1, &[Made::new(1).applied(100)]));
    let silent = first.then(look(2, &[Made::new(1).silent()]));
    assert_eq!((silent.nodes[0].reachable, silent.nodes[0].log_bytes), (false, Some(64 << 20)));
    let never = Sample::of(look(2, &[Made::new(1).silent()]));
    assert_eq!((never.nodes[0].replicas, never.nodes[0].log_bytes), (2, None));
    assert_eq!(silent.nodes[0].at, Duration::from_secs(1));
    assert_eq!((silent.shards[0].leader, silent.shards[0].messages), (0, 100));
    assert_eq!((silent.totals.messages, silent.totals.nodes_up), (0, 0));
    assert!(silent.totals.alarms.join("\n").contains("shard 1: no replica answers"));
}

#[test]
fn a_store_that_is_silent_changes_no_figure() {
    let first = Sample::of(look(1, &[Made::new(1).applied(100)]));
    let silent = first.then(silence(2)).then(silence(3));
    assert_eq!(silent.totals.messages, 200);
    assert_eq!((silent.nodes.len(), silent.shards.len()), (1, 2));
    assert!(silent.faults.store.is_some() && silent.gateways.is_some());
    let never = Sample::of(silence(1));
    assert_eq!((never.totals.connections, never.totals.moves), (None, None));
    let back = silent.then(look(4, &[Made::new(1).applied(100)]));
    assert!(back.faults.store.is_none() && back.faults.moves.is_none());
}
