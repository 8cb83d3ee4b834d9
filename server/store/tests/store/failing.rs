//! Disks that are slow, fail or lose power: what was answered OK is kept, and what was not taken is
//! told to come back.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::{Condvar, Mutex};
use switchboard_api::v1::{self, ItemStatus};
use switchboard_engine::fs::{FileHandle, FileLock, Files, OpenMode, RealFiles, sim::SimFiles};
use tonic::{Code, Status};

use crate::harness::{assert_error, assert_status, config, device, message, start_on};

/// A disk whose syncs wait while its gate is shut, and that says what it is told of its free bytes.
#[derive(Clone, Default)]
pub(crate) struct GatedFiles {
    gate: Arc<(Mutex<bool>, Condvar)>,
    free_bytes: Arc<Mutex<Option<u64>>>,
}

impl GatedFiles {
    fn shut(&self, shut: bool) {
        *self.gate.0.lock() = shut;
        self.gate.1.notify_all();
    }

    pub(crate) fn set_free(&self, bytes: Option<u64>) {
        *self.free_bytes.lock() = bytes;
    }
}

impl Files for GatedFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFiles.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>> {
        let file = RealFiles.open(path, mode)?;
        Ok(Arc::new(GatedFile { file, gate: self.gate.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFiles.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFiles.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFiles.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<FileLock> {
        RealFiles.lock(path)
    }
    fn space_free(&self, dir: &Path) -> io::Result<u64> {
        let told = *self.free_bytes.lock();
        told.map_or_else(|| RealFiles.space_free(dir), Ok)
    }
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        RealFiles.fill_random(bytes)
    }
}

struct GatedFile {
    file: Arc<dyn FileHandle>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl FileHandle for GatedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        let (is_shut, opened) = &*self.gate;
        opened.wait_while(&mut is_shut.lock(), |is_shut| *is_shut);
        self.file.sync_data()
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_size(size)
    }
    fn map(&self) -> io::Result<Bytes> {
        self.file.map()
    }
}

/// Whether nothing of it has happened; else the wait for the disk was so long that nobody can say.
fn is_overloaded(error: &Status) -> bool {
    if error.code() == Code::Unavailable {
        return false;
    }
    assert_error(error, Code::ResourceExhausted, "OVERLOADED", true);
    true
}

/// While nothing can be synced, nothing is answered OK; what finds no room is refused with a time.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_what_may_wait_callers_are_told_when_to_come_back() {
    const BATCHES: u64 = 5;
    let dir = tempfile::tempdir().unwrap();
    let files = GatedFiles::default();
    let mut configured = config(dir.path());
    configured.limits.waiting_items_max = 1_024;
    let mut store = start_on(Arc::new(files.clone()), configured).await.unwrap();
    let batch = |batch: u64| v1::EnqueueRequest {
        items: (0..1_024).map(|n| message("alice", "bob", batch * 1_024 + n, b"")).collect(),
    };
    files.shut(true);
    let mut calls: FuturesUnordered<_> = (0..BATCHES)
        .map(|n| {
            let mut mailboxes = store.mailboxes.clone();
            async move { (n, mailboxes.enqueue(batch(n)).await) }
        })
        .collect();
    // One batch is under way and one waits, at most; the others are refused at once.
    let (mut refused, mut unknown) = (Vec::new(), 0);
    while refused.len() + unknown < BATCHES as usize - 2 {
        let (n, answer) = calls.next().await.unwrap();
        let error = answer.expect_err("nothing is durable while the gate is shut");
        if is_overloaded(&error) {
            refused.push(n);
        } else {
            unknown += 1;
        }
    }
    // On a stream each item says so (or finds room after all), and the stream goes on.
    let request = v1::EnqueueStreamRequest { id: 9, request: Some(batch(BATCHES)) };
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = store.mailboxes.enqueue_stream(stream).await.unwrap().into_inner();
    requests.send(request).await.unwrap();
    files.shut(false);
    while let Some((n, answer)) = calls.next().await {
        match answer {
            Ok(response) => response
                .into_inner()
                .results
                .iter()
                .for_each(|result| assert_status(result.status, ItemStatus::Ok)),
            Err(error) => {
                if is_overloaded(&error) {
                    refused.push(n);
                }
            }
        }
    }
    let answer = answers.message().await.unwrap().unwrap().response.unwrap();
    let statuses: Vec<_> = answer.results.iter().map(|result| result.status()).collect();
    assert_eq!(statuses.len(), 1_024);
    let expected = [ItemStatus::Overloaded, ItemStatus::Unavailable, ItemStatus::Ok];
    assert!(statuses.iter().all(|status| expected.contains(status)), "{statuses:?}");
    // Whoever comes back is served; nothing that was refused had been stored.
    for n in refused {
        let response = store.mailboxes.enqueue(batch(n)).await.unwrap().into_inner();
        assert!(response.results.iter().all(|result| result.status() == ItemStatus::Ok));
    }
    drop(requests);
    store.running.shutdown().await;
}

/// Power goes at many points of the same work. Whatever was answered OK is there afterwards, whole
/// and in order; what was not answered may be there or not.
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_message_is_lost_when_power_goes() {
    for seed in 0..12 {
        let disk = SimFiles::new(seed);
        let data = Path::new("/data");
        let mut store = start_on(Arc::new(disk.clone()), config(data)).await.unwrap();
        disk.crash_at(disk.operations() + 5 + seed * 7);
        let body = |n: u64| vec![n as u8; 300];
        let mut acknowledged = BTreeMap::<String, Vec<(u64, u64)>>::new();
        'work: for round in 0.. {
            let users: Vec<_> = (0..8).map(|n| format!("user-{n}")).collect();
            let items: Vec<_> = users
                .iter()
                .zip(round * 8..)
                .map(|(user, n)| message("alice", user, n, &body(n)))
                .collect();
            let request = v1::EnqueueRequest { items };
            let Ok(response) = store.mailboxes.enqueue(request).await else { break };
            for ((user, n), result) in
                users.into_iter().zip(round * 8..).zip(response.into_inner().results)
            {
                if result.status() != ItemStatus::Ok {
                    break 'work;
                }
                acknowledged.entry(user).or_default().push((n, result.stored[0].seq));
            }
        }
        assert!(disk.is_down(), "only the disk ends the work");
        let failure = store.running.wait().await;
        assert!(!failure.reason.is_empty());
        store.running.shutdown().await;
        disk.power_cut();

        let mut store = start_on(Arc::new(disk.clone()), config(data)).await.unwrap();
        for (user, sent) in &acknowledged {
            let page = store.fetch(device(user, 1)).await;
            let found: Vec<_> = page.messages.iter().map(|m| m.seq).collect();
            assert!(found.is_sorted());
            for (n, seq) in sent {
                let message = page.messages.iter().find(|m| m.seq == *seq);
                let message = message.unwrap_or_else(|| panic!("seed {seed}: {user} lost {n}"));
                assert_eq!(message.body, body(*n), "seed {seed}");
            }
        }
        let total: usize = acknowledged.values().map(Vec::len).sum();
        assert!(total > 0 || seed < 2, "seed {seed}: the crash came before anything was sent");
        // And life goes on.
        let sent = store.enqueue(message("alice", "bob", 1 << 40, b"after")).await;
        assert_status(sent.status, ItemStatus::Ok);
        store.running.shutdown().await;
    }
}
