//! The protocol under loom: every order of events, and every value that a weak memory may show.

use std::sync::atomic::Ordering::{self, Relaxed};

use loom::{
    model,
    sync::{
        Arc,
        atomic::{AtomicU64, fence},
    },
    thread,
};

use super::{Word, try_read, write};

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }

    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }

    fn fence(order: Ordering) {
        fence(order);
    }
}

/// A sub-table in small: which block it uses, and blocks of two words.
struct Table {
    version: AtomicU64,
    block: AtomicU64,
    blocks: [[AtomicU64; 2]; 2],
}

impl Table {
    fn new() -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        let block = || [zero(), zero()];
        Arc::new(Self { version: zero(), block: zero(), blocks: [block(), block()] })
    }

    fn fill(&self, block: usize, value: u64) {
        self.blocks[block].iter().for_each(|word| word.store(value, Relaxed));
    }

    /// What a reader finds, if it finds anything.
    fn read(&self) -> Option<(u64, u64)> {
        try_read(&self.version, || {
            let [first, second] = &self.blocks[self.block.load(Relaxed) as usize];
            (first.load(Relaxed), second.load(Relaxed))
        })
    }
}

#[test]
fn no_reader_sees_half_of_a_change() {
    model(|| {
        let table = Table::new();
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                for value in 1..=2 {
                    write(&table.version, || table.fill(0, value));
                }
            })
        };
        if let Some((first, second)) = table.read() {
            assert_eq!(first, second);
        }
        writer.join().expect("the writer");
        assert_eq!(table.read(), Some((2, 2)), "what was written is found");
    });
}

#[test]
fn a_reader_of_the_block_before_growth_never_takes_what_the_block_is_used_for_next() {
    model(|| {
        let table = Table::new();
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                // The new block is filled where nobody looks yet, and only then named.
                table.fill(1, 1);
                write(&table.version, || table.block.store(1, Relaxed));
                // The old one is free now: another sub-table, under another version, fills it.
                table.fill(0, 9);
            })
        };
        if let Some((first, second)) = table.read() {
            assert!((first, second) == (0, 0) || (first, second) == (1, 1), "{first} {second}");
        }
        writer.join().expect("the writer");
        assert_eq!(table.read(), Some((1, 1)));
    });
}

#[test]
fn two_reads_of_one_thread_never_go_back_in_time() {
    model(|| {
        let table = Table::new();
        let writer = {
            let table = table.clone();
            thread::spawn(move || write(&table.version, || table.fill(0, 1)))
        };
        let (before, after) = (table.read(), table.read());
        if let (Some((before, _)), Some((after, _))) = (before, after) {
            assert!(before <= after);
        }
        writer.join().expect("the writer");
    });
}
