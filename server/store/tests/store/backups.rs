//! A loaded cluster is backed up, and restored into a new one message by message.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use switchboard_api::v1::{self, ItemStatus, backup_response::Content, register_request::Kind};
use switchboard_engine::LogId;
use switchboard_engine::backup::{BackupWriter, Manifest, Part};
use switchboard_store::{RestoreError, RestoreOptions, restore, verify};

use crate::harness::{Store, assert_status, device, message, start};

const USERS: u64 = 40;

fn user(n: u64) -> String {
    format!("user-{n}")
}

/// A backup as the command writes it.
async fn backed_up(store: &mut Store) -> Vec<u8> {
    let stream = store.cluster.backup(v1::BackupRequest::default()).await.expect("taken");
    let mut stream = stream.into_inner();
    let mut next = async || stream.message().await.expect("whole").and_then(|m| m.content);
    let Some(Content::Manifest(sent)) = next().await else { panic!("the manifest is first") };
    let manifest = Manifest {
        cluster_id: sent.cluster_id[..].try_into().expect("16 bytes"),
        shards: sent.shards,
        created_at_ms: sent.created_at_ms,
        made_by: sent.version,
    };
    let mut bytes = Vec::new();
    let mut backup = BackupWriter::new(&mut bytes, &manifest).expect("memory");
    while let Some(content) = next().await {
        let written = match content {
            Content::Part(part) => backup.begin(&Part {
                group: part.group,
                at: LogId::new(part.term, part.index),
                generation: part.generation.try_into().expect("7 bits"),
            }),
            Content::Chunk(chunk) => backup.bytes(&chunk),
            Content::End(_) => backup.end(),
            Content::Manifest(_) => panic!("a second manifest"),
        };
        written.expect("memory");
    }
    backup.finish().expect("memory");
    bytes
}

fn restored(bytes: &[u8], data: &Path) -> Result<switchboard_store::Restored, RestoreError> {
    let options = RestoreOptions { data_dir: data.to_owned(), node_id: 1, generation: None };
    let bytes: Arc<[u8]> = bytes.into();
    let open = || Ok(Box::new(std::io::Cursor::new(bytes.clone())) as Box<dyn Read>);
    restore(open, &options, |_| {})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_cluster_comes_back_message_by_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(&dir.path().join("old")).await;
    let gateway = store.register("gateway-1", Kind::Gateway).await;
    for n in 0..USERS * 5 {
        let item = message("alice", &user(n % USERS), n, format!("body {n}").as_bytes());
        assert_status(store.enqueue(item).await.status, ItemStatus::Ok);
    }
    store.claim(gateway, device("user-1", 1), 1).await;

    // Others go on sending meanwhile, to users of their own.
    let stop = Arc::new(AtomicBool::new(false));
    let loading = {
        let (mut mailboxes, stop) = (store.mailboxes.clone(), stop.clone());
        tokio::spawn(async move {
            for n in 1_000_000.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let items = vec![message("alice", &format!("other-{}", n % 50), n, b"load")];
                mailboxes.enqueue(v1::EnqueueRequest { items }).await.expect("answered");
            }
        })
    };
    let bytes = backed_up(&mut store).await;
    stop.store(true, Ordering::Relaxed);
    loading.await.unwrap();

    let mut before = Vec::new();
    for n in 0..USERS {
        before.push(store.fetch(device(&user(n), 1)).await.messages);
    }
    // Handed out after the backup: the new cluster must stay above.
    let last = store.enqueue(message("alice", "user-0", 7_777_777, b"lost")).await;
    let last_seq = last.stored[0].seq;
    let later = store.register("gateway-1", Kind::Gateway).await;
    store.running.shutdown().await;

    let (_, parts) = verify(&mut &bytes[..], |_| {}).expect("sound");
    assert_eq!(parts.len(), 5);
    let data = dir.path().join("new");
    assert_eq!(restored(&bytes, &data).expect("restored").generation, 1);
    let refused = restored(&bytes, &data);
    assert!(matches!(refused, Err(RestoreError::NotEmpty { .. })), "{refused:?}");

    let mut store = start(&data).await;
    for (n, before) in (0..USERS).zip(&before) {
        assert_eq!(&store.fetch(device(&user(n), 1)).await.messages, before, "user {n}");
    }
    // The claim of the old cluster's gateway has ended with it.
    assert_eq!(store.locate(b"user-1").await.sessions, []);
    let again = store.register("gateway-1", Kind::Gateway).await;
    assert!(again.0 == gateway.0 && again.1 > later.1, "{again:?} after {later:?}");
    let next = store.enqueue(message("alice", "user-0", 8_888_888, b"next")).await;
    assert!(next.stored[0].seq > last_seq);
    // What was sent before is known as sent.
    let repeated = store.enqueue(message("alice", "user-0", 0, b"body 0")).await;
    assert_status(repeated.status, ItemStatus::Duplicate);
    store.running.shutdown().await;
    // It is a cluster as any other: a restart finds it again.
    let mut store = start(&data).await;
    assert_eq!(store.fetch(device("user-0", 1)).await.messages.len(), 6);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_refused_and_makes_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(&dir.path().join("old")).await;
    store.enqueue(message("alice", "bob", 1, b"hello")).await;
    let bytes = backed_up(&mut store).await;
    store.running.shutdown().await;
    let data = dir.path().join("new");
    let cut = restored(&bytes[..bytes.len() / 2], &data).unwrap_err().to_string();
    assert!(cut.contains("damaged at byte") && cut.contains("cut off"), "{cut}");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 3] ^= 1;
    let flipped = restored(&flipped, &data).unwrap_err().to_string();
    assert!(flipped.contains("at byte"), "{flipped}");
    assert!(!data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_verifies_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    store.enqueue(message("alice", "bob", 1, b"hello")).await;
    let mut stream = store.cluster.verify(v1::VerifyRequest::default()).await.unwrap().into_inner();
    let mut groups = Vec::new();
    while let Some(verified) = stream.message().await.unwrap() {
        assert_eq!(verified.fault, "");
        assert!(verified.bytes > 0);
        groups.push(verified.group);
    }
    assert_eq!(groups, [1, 2, 3, 4, 0]);
    store.running.shutdown().await;
}
