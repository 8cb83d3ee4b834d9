use bytes::Bytes;

use super::*;

fn entry(index: u64, len: u32) -> (Change, Option<EntryPayload>) {
    let change = Change::Entry { id: LogId::new(1, index), kind: PayloadKind::Commands, len };
    let payload = Bytes::from(vec![index.to_le_bytes()[0]; len as usize]);
    (change, Some(EntryPayload::Commands(payload)))
}

fn append(index: &mut Index, at: u64) -> u64 {
    let (change, payload) = entry(at, 10);
    index.append(1, &change, payload)
}

fn in_memory(index: &Index, at: u64) -> bool {
    matches!(index.source(1, at), Some((_, _, Source::Memory(_))))
}

#[test]
fn payloads_leave_memory_oldest_first_but_not_before_they_are_written() {
    let mut index = Index::default();
    let numbers: Vec<u64> = (0..4).map(|at| append(&mut index, at)).collect();
    index.evict(0);
    assert!((0..4).all(|at| in_memory(&index, at)));
    for at in 0..2 {
        index.place(1, at, numbers[at as usize], 1, [4096].into_iter());
    }
    index.evict(0);
    assert!(!in_memory(&index, 0) && !in_memory(&index, 1) && in_memory(&index, 2));
    assert_eq!(index.recent_bytes(), 2 * (RECENT_OVERHEAD_BYTES + 10));
}

#[test]
fn the_write_of_a_truncated_entry_does_not_place_its_successor() {
    let mut index = Index::default();
    let old = append(&mut index, 0);
    index.append(1, &Change::Truncate(None), None);
    let new = append(&mut index, 0);
    index.place(1, 0, old, 1, [4096].into_iter());
    assert_eq!(index.groups[&1].slots[0].segment, UNWRITTEN);
    index.place(1, 0, new, 1, [8192].into_iter());
    assert_eq!((index.groups[&1].slots[0].segment, index.groups[&1].slots[0].offset), (1, 8192));
}

#[test]
fn removed_entries_leave_memory_and_the_order_does_not_grow() {
    let mut index = Index::default();
    for at in 0..1000 {
        let number = append(&mut index, at);
        index.place(1, at, number, 1, [0].into_iter());
        index.append(1, &Change::Purge(LogId::new(1, at)), None);
        index.evict(usize::MAX);
    }
    assert_eq!((index.recent_bytes(), index.order.len()), (0, 0));
    assert_eq!(index.groups[&1].bytes(), 0);
    assert_eq!(index.groups[&1].log_id_at(999), Some(LogId::new(1, 999)));
    assert_eq!(index.groups[&1].log_id_at(998), None);
}

#[test]
fn a_gap_is_one_until_a_purge_explains_it() {
    let mut index = Index::default();
    let core = Core { first: Some(3), last: Some(LogId::new(1, 9)), ..Core::default() };
    index.start(1, core);
    assert_eq!(index.gap(), Some((1, 3)), "nothing of 3..=9 was met");
    for at in 10..20 {
        index.recover(1, &entry(at, 10).0, 5, 4096);
    }
    assert_eq!(index.gap(), Some((1, 3)));
    index.recover(1, &Change::Purge(LogId::new(1, 8)), 5, 8192);
    assert_eq!(index.gap(), Some((1, 9)));
    index.recover(1, &Change::Purge(LogId::new(1, 9)), 5, 8192);
    assert_eq!(index.gap(), None);
}
