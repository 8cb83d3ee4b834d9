//! Kills a process that uses a store, and checks that nothing acknowledged is lost.
//!
//! ```text
//! scripts/kill-store [--rounds N] [--dir DIR] [--seed N]
//!
//!   parent ──spawns──▶ child: threads enqueue, ack and claim on the store
//!     ▲                  │ a line before each call and after each answer
//!     └──── pipe ◀───────┘
//!   kill -9, read the pipe to its end, open the store, compare, next round
//! ```
//! Each thread has users of its own and one call under way, so after a kill at most one call a thread
//! is in doubt. This tests the death of a process; the loss of power is simulated by the crash tests.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use switchboard_engine::{
    DeviceId, Enqueue, MessageKind, Options, Status, Store, fs::sim::Random, log::LogOptions,
};

const THREADS: u64 = 6;
const ROUNDS: u64 = 200;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, dir, round] = arguments.as_slice()
        && role == "load"
    {
        return load(Path::new(dir), round.parse()?);
    }
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let rounds = option("--rounds").map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let seed = option("--seed").map_or(Ok(1), |seed| seed.parse())?;
    let own = tempfile::tempdir()?;
    let dir = option("--dir").map_or(own.path().to_owned(), PathBuf::from);
    kill_again_and_again(&dir.join("store"), rounds, seed)
}

fn open(dir: &Path) -> Result<Store> {
    let log = LogOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..LogOptions::default() };
    Ok(Store::open(dir, Options { log, checkpoint_bytes: 2 << 20, ..Options::default() })?)
}

fn device(thread: u64) -> DeviceId {
    DeviceId::new(format!("user-{thread}"), 1)
}

fn body(number: u64) -> Bytes {
    let len = 8 + number as usize * 7 % 1_000;
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

/// The child: works until it is killed.
fn load(dir: &Path, round: u64) -> Result<()> {
    let store = Arc::new(open(dir)?);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || work(&store, thread, round).map_err(|e| e.to_string()))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

/// Numbers rise through all rounds, so that what was sent twice or never would show.
fn work(store: &Store, thread: u64, round: u64) -> Result<()> {
    let (device, mut random) = (device(thread), Random::new(round * 100 + thread));
    let mut number = round * 1_000_000;
    let say = |line: String| writeln!(std::io::stdout(), "{thread} {line}");
    loop {
        match random.below(8) {
            0 => {
                say("claim?".to_owned())?;
                let claimed = store.claim(&device, 1, number)?;
                say(format!("claim! {}", claimed.epoch))?;
            }
            1 | 2 => {
                let page = store.fetch(&device, 0, 64)?;
                let nth = random.below(page.messages.len() as u64 + 1) as usize;
                let Some(message) = page.messages.get(nth) else { continue };
                say(format!("ack? {}", message.seq))?;
                store.ack(&device, message.seq)?;
                say(format!("ack! {}", message.seq))?;
            }
            _ => {
                number += 1;
                say(format!("send? {number}"))?;
                let answers = store.enqueue(&[Enqueue {
                    to_user: device.user.clone(),
                    to_device: device.device,
                    message_id: u128::from(thread << 48 | number).to_le_bytes(),
                    from: DeviceId::new("sender", 1),
                    ttl_ms: 0,
                    kind: MessageKind::Content,
                    body: body(number),
                }])?;
                let [answer] = answers.as_slice() else { return Err("no answer".into()) };
                // A full mailbox is an answer as well: nothing is stored.
                let seq = answer.stored.first().filter(|s| s.status == Status::Ok);
                say(format!("send! {number} {}", seq.map_or(0, |stored| stored.seq)))?;
            }
        }
    }
}

/// What must be in one thread's mailbox.
#[derive(Default)]
struct Expected {
    /// Number by seq.
    messages: BTreeMap<u64, u64>,
    epoch: u64,
    /// A call without an answer.
    sending: Option<u64>,
    acking: Option<u64>,
    claiming: bool,
}

fn kill_again_and_again(dir: &Path, rounds: u64, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut expected: Vec<Expected> = (0..THREADS).map(|_| Expected::default()).collect();
    let (mut answers, mut doubts) = (0, 0);
    for round in 1..=rounds {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["load", &dir.to_string_lossy(), &round.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no pipe")?;
        let mut lines = BufReader::new(output).lines();
        // Sometimes while it opens the store, sometimes after thousands of calls.
        let before = if random.one_in(8) { 0 } else { random.below(6_000) as usize };
        let mut seen = lines.by_ref().take(before).collect::<std::io::Result<Vec<String>>>()?;
        child.kill()?;
        let status = child.wait()?;
        if status.code().is_some() {
            return Err(format!("round {round}: the child ended by itself: {status}").into());
        }
        for line in lines {
            seen.push(line?);
        }
        for line in seen {
            answers += u64::from(line.contains('!'));
            note(&mut expected, &line).ok_or_else(|| format!("a line says {line:?}"))?;
        }
        let store = open(dir)?;
        for (thread, expected) in (0..).zip(&mut expected) {
            doubts += check(&store, thread, expected)
                .map_err(|wrong| format!("round {round} (seed {seed}), user {thread}: {wrong}"))?;
        }
        if round % 10 == 0 || round == rounds {
            println!("{round} of {rounds} kills: {answers} answers, {doubts} in doubt, none lost");
        }
    }
    Ok(())
}

fn note(expected: &mut [Expected], line: &str) -> Option<()> {
    let mut words = line.split(' ');
    let of = expected.get_mut(words.next()?.parse::<usize>().ok()?)?;
    let what = words.next()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    match what {
        "claim?" => of.claiming = true,
        "claim!" => (of.claiming, of.epoch) = (false, number()?),
        "ack?" => of.acking = Some(number()?),
        "ack!" => {
            let seq = number()?;
            of.acking = None;
            of.messages.retain(|waiting, _| *waiting > seq);
        }
        "send?" => of.sending = Some(number()?),
        "send!" => {
            let (number, seq) = (number()?, number()?);
            of.sending = None;
            if seq > 0 {
                of.messages.insert(seq, number);
            }
        }
        _ => return None,
    }
    Some(())
}

/// Compares, takes over how the call in doubt has ended, and counts it.
fn check(store: &Store, thread: u64, expected: &mut Expected) -> Result<u64> {
    let device = device(thread);
    let mut found = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = store.fetch(&device, after, 1_024)?;
        for message in &page.messages {
            let number = u128::from_le_bytes(message.message_id) as u64 & ((1 << 48) - 1);
            if message.body != body(number) {
                return Err(format!("message {number} has another's body").into());
            }
            found.insert(message.seq, number);
        }
        match page.messages.last() {
            Some(last) if page.more => after = last.seq,
            _ => break,
        }
    }
    if let Some(seq) = expected.acking.take().filter(|_| found != expected.messages) {
        expected.messages.retain(|waiting, _| *waiting > seq);
    }
    let sent = expected.sending.take();
    let mut doubts = u64::from(sent.is_some());
    if let Some((seq, number)) = found.last_key_value().filter(|(_, number)| Some(**number) == sent)
    {
        expected.messages.insert(*seq, *number);
    }
    if found != expected.messages {
        let lost: Vec<_> =
            expected.messages.iter().filter(|(s, _)| !found.contains_key(s)).collect();
        let back: Vec<_> =
            found.iter().filter(|(s, _)| !expected.messages.contains_key(s)).collect();
        return Err(format!("lost (seq, number): {lost:?}, not expected: {back:?}").into());
    }
    let epoch = store.session(&device.user, device.device).map_or(0, |session| session.epoch);
    let is_right =
        if expected.claiming { epoch >= expected.epoch } else { epoch == expected.epoch };
    if !is_right {
        return Err(format!("epoch {epoch} instead of {}", expected.epoch).into());
    }
    doubts += u64::from(expected.claiming);
    (expected.claiming, expected.epoch) = (false, epoch);
    Ok(doubts)
}
