//! Durable queues that one would build on an embedded store: `redb` and `fjall`, fsync on.
//!
//! Both keep a message under its user and seq, and under its expiry if it has one, and both commit what
//! is handed over together in one durable transaction, which is their group commit. They number,
//! deduplicate and fence nothing; that is in their favour.

use std::path::Path;

use anyhow::Result;

/// The name of a user.
pub type Name = [u8; 16];

/// A message, for whoever keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The recipient.
    pub to: Name,
    /// Its place in the mailbox, given by the caller.
    pub seq: u64,
    /// When it expires; 0: never, and nothing is kept to find out.
    pub expires_at_ms: u64,
    /// The body.
    pub body: &'a [u8],
}

/// What is taken from a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whose.
    pub user: Name,
    /// Which message.
    pub seq: u64,
    /// As it was given.
    pub expires_at_ms: u64,
}

/// A queue a user, durable when a call returns.
pub trait Queue: Sized {
    /// Its name in tables.
    const NAME: &'static str;
    /// Opens or begins it.
    fn open(dir: &Path) -> Result<Self>;
    /// Adds messages, all in one durable commit.
    fn enqueue(&self, messages: &[Message<'_>]) -> Result<()>;
    /// Reads what waits for a user, bodies included, and adds it to `taken`; returns their bytes.
    fn fetch(&self, user: &Name, taken: &mut Vec<Taken>) -> Result<usize>;
    /// Removes messages, all in one durable commit.
    fn ack(&self, taken: &[Taken]) -> Result<()>;
    /// Removes what has expired, in one durable commit; returns how many.
    fn expire(&self, now_ms: u64) -> Result<usize>;
}

const EXPIRY_BYTES: usize = 8;
/// User and seq.
const KEY_BYTES: usize = 24;

fn key(user: &Name, seq: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..16].copy_from_slice(user);
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

fn expiry_key(taken: &Taken) -> [u8; EXPIRY_BYTES + KEY_BYTES] {
    let mut bytes = [0; EXPIRY_BYTES + KEY_BYTES];
    bytes[..EXPIRY_BYTES].copy_from_slice(&taken.expires_at_ms.to_be_bytes());
    bytes[EXPIRY_BYTES..].copy_from_slice(&key(&taken.user, taken.seq));
    bytes
}

/// The value: expiry, body.
fn value(message: &Message<'_>) -> Vec<u8> {
    [&message.expires_at_ms.to_be_bytes(), message.body].concat()
}

fn taken(user: &Name, key: &[u8], value: &[u8]) -> Result<Taken> {
    let seq = u64::from_be_bytes(key[16..].try_into()?);
    let expires_at_ms = u64::from_be_bytes(value[..EXPIRY_BYTES].try_into()?);
    Ok(Taken { user: *user, seq, expires_at_ms })
}

fn of(message: &Message<'_>) -> Taken {
    Taken { user: message.to, seq: message.seq, expires_at_ms: message.expires_at_ms }
}

/// `redb`: a copy-on-write B-tree.
pub struct Redb {
    database: redb::Database,
}

const MESSAGES: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("messages");
const EXPIRIES: redb::TableDefinition<'_, &[u8], ()> = redb::TableDefinition::new("expiries");

impl Queue for Redb {
    const NAME: &'static str = "redb";

    fn open(dir: &Path) -> Result<Self> {
        let database = redb::Database::create(dir.join("queue.redb"))?;
        let begin = database.begin_write()?;
        begin.open_table(MESSAGES)?;
        begin.open_table(EXPIRIES)?;
        begin.commit()?;
        Ok(Self { database })
    }

    fn enqueue(&self, messages: &[Message<'_>]) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            let (mut queue, mut expiries) =
                (write.open_table(MESSAGES)?, write.open_table(EXPIRIES)?);
            for message in messages {
                queue
                    .insert(key(&message.to, message.seq).as_slice(), value(message).as_slice())?;
                if message.expires_at_ms > 0 {
                    expiries.insert(expiry_key(&of(message)).as_slice(), ())?;
                }
            }
        }
        Ok(write.commit()?)
    }

    fn fetch(&self, user: &Name, found: &mut Vec<Taken>) -> Result<usize> {
        use redb::ReadableDatabase;
        let queue = self.database.begin_read()?.open_table(MESSAGES)?;
        let mut bytes = 0;
        for entry in queue.range(key(user, 0).as_slice()..=key(user, u64::MAX).as_slice())? {
            let (key, value) = entry?;
            bytes += value.value().to_vec().len() - EXPIRY_BYTES;
            found.push(taken(user, key.value(), value.value())?);
        }
        Ok(bytes)
    }

    fn ack(&self, taken: &[Taken]) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            let (mut queue, mut expiries) =
                (write.open_table(MESSAGES)?, write.open_table(EXPIRIES)?);
            for one in taken {
                queue.remove(key(&one.user, one.seq).as_slice())?;
                if one.expires_at_ms > 0 {
                    expiries.remove(expiry_key(one).as_slice())?;
                }
            }
        }
        Ok(write.commit()?)
    }

    fn expire(&self, now_ms: u64) -> Result<usize> {
        let write = self.database.begin_write()?;
        let mut expired = 0;
        {
            let (mut queue, mut expiries) =
                (write.open_table(MESSAGES)?, write.open_table(EXPIRIES)?);
            let end = now_ms.saturating_add(1).to_be_bytes();
            for entry in expiries.extract_from_if(..end.as_slice(), |_, ()| true)? {
                queue.remove(&entry?.0.value()[EXPIRY_BYTES..])?;
                expired += 1;
            }
        }
        write.commit()?;
        Ok(expired)
    }
}

/// `fjall`: an LSM tree.
pub struct Fjall {
    database: fjall::Database,
    messages: fjall::Keyspace,
    expiries: fjall::Keyspace,
}

impl Fjall {
    fn batch(&self) -> fjall::OwnedWriteBatch {
        self.database.batch().durability(Some(fjall::PersistMode::SyncData))
    }
}

impl Queue for Fjall {
    const NAME: &'static str = "fjall";

    fn open(dir: &Path) -> Result<Self> {
        let database = fjall::Database::builder(dir.join("fjall")).open()?;
        let messages = database.keyspace("messages", fjall::KeyspaceCreateOptions::default)?;
        let expiries = database.keyspace("expiries", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { database, messages, expiries })
    }

    fn enqueue(&self, messages: &[Message<'_>]) -> Result<()> {
        let mut batch = self.batch();
        for message in messages {
            batch.insert(&self.messages, key(&message.to, message.seq), value(message));
            if message.expires_at_ms > 0 {
                batch.insert(&self.expiries, expiry_key(&of(message)), []);
            }
        }
        Ok(batch.commit()?)
    }

    fn fetch(&self, user: &Name, found: &mut Vec<Taken>) -> Result<usize> {
        let mut bytes = 0;
        for entry in self.messages.prefix(user) {
            let (key, value) = entry.into_inner()?;
            bytes += value.to_vec().len() - EXPIRY_BYTES;
            found.push(taken(user, &key, &value)?);
        }
        Ok(bytes)
    }

    fn ack(&self, taken: &[Taken]) -> Result<()> {
        let mut batch = self.batch();
        for one in taken {
            batch.remove(&self.messages, key(&one.user, one.seq));
            if one.expires_at_ms > 0 {
                batch.remove(&self.expiries, expiry_key(one));
            }
        }
        Ok(batch.commit()?)
    }

    fn expire(&self, now_ms: u64) -> Result<usize> {
        let mut batch = self.batch();
        let mut expired = 0;
        for entry in self.expiries.range(..now_ms.saturating_add(1).to_be_bytes()) {
            let key = entry.key()?;
            batch.remove(&self.messages, &key[EXPIRY_BYTES..]);
            batch.remove(&self.expiries, key);
            expired += 1;
        }
        batch.commit()?;
        Ok(expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps_gives_and_forgets<Q: Queue>() {
        let dir = tempfile::tempdir().expect("a directory");
        let queue = Q::open(dir.path()).expect("open");
        let message =
            |to, seq| Message { to: [to; 16], seq, expires_at_ms: 10 * seq, body: b"hello" };
        queue.enqueue(&[message(1, 1), message(1, 2), message(2, 3)]).expect("enqueue");
        drop(queue);
        let queue = Q::open(dir.path()).expect("open again");
        let mut taken = Vec::new();
        assert_eq!(queue.fetch(&[1; 16], &mut taken).expect("fetch"), 10);
        assert_eq!(taken.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2]);
        queue.ack(&taken[..1]).expect("ack");
        assert_eq!(queue.expire(20).expect("expire"), 1);
        taken.clear();
        assert_eq!(queue.fetch(&[1; 16], &mut taken).expect("fetch"), 0);
        assert_eq!(queue.fetch(&[2; 16], &mut taken).expect("fetch"), 5);
    }

    #[test]
    fn redb_keeps_gives_and_forgets() {
        keeps_gives_and_forgets::<Redb>();
    }

    #[test]
    fn fjall_keeps_gives_and_forgets() {
        keeps_gives_and_forgets::<Fjall>();
    }
}
