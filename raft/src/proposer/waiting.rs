//! Proposals in pieces: waiting, poured into entries, and answered.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_engine::{Command, EntryBuilder, PushError, Reply};
use tokio::sync::oneshot;

use super::Outcome;
use super::size::command_bytes;
use crate::error::ProposeError;

pub(super) type Answer = oneshot::Sender<Result<Vec<Reply>, ProposeError>>;

/// A proposal, or the rest of one, that is in no entry yet.
pub(super) struct Waiting {
    commands: std::vec::IntoIter<Command>,
    /// The command that did not fit the entry before.
    held: Option<Command>,
    /// How many parts of it entries before have taken.
    parts: usize,
    slot: Slot,
}

/// Who gets the replies of a part.
enum Slot {
    Whole(Answer),
    Split(Arc<Mutex<Split>>),
}

/// A proposal whose commands are spread over several entries.
struct Split {
    /// Those of each part that was answered. Parts may be answered in any order: the next entry commits while the
    /// one before is applied.
    replies: Vec<Option<Vec<Reply>>>,
    /// How many parts there are, once the last one was answered.
    parts: Option<usize>,
    /// Gone once the proposal has failed: what is left of it is dropped then.
    sender: Option<Answer>,
}

/// The commands that one proposal has in one entry.
pub(super) struct Part {
    slot: Slot,
    commands: usize,
    /// How many parts of the proposal are in entries before.
    number: usize,
    last: bool,
}

/// An entry filled from what waits.
pub(super) struct Filled {
    pub(super) bytes: Bytes,
    pub(super) commands: usize,
    pub(super) parts: Vec<Part>,
}

/// What no longer waits after an entry was filled.
#[derive(Default)]
pub(super) struct Gone {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Gone {
    fn count(&mut self, command: &Command) {
        self.items += 1;
        self.bytes += command_bytes(command);
    }
}

/// Fills one entry with as much of what waits as fits, in order. No entry comes out if all that
/// waited had failed.
pub(super) fn fill(
    waiting: &mut VecDeque<Waiting>,
    mut builder: EntryBuilder,
) -> (Option<Filled>, Gone) {
    let mut parts = Vec::new();
    let mut gone = Gone::default();
    while let Some(proposal) = waiting.front_mut() {
        match proposal.pour(&mut builder, &mut gone) {
            Poured::All(part) => parts.push(part),
            Poured::Nothing => {}
            Poured::Some(part) => {
                parts.push(part);
                break;
            }
            Poured::Full => break,
        }
        waiting.pop_front();
    }
    let commands = builder.len();
    let filled = (commands > 0).then(|| Filled { bytes: builder.finish(), commands, parts });
    (filled, gone)
}

/// How much of a proposal went into an entry.
enum Poured {
    /// All the rest of it.
    All(Part),
    /// The entry is full; the rest belongs into the next one.
    Some(Part),
    /// The entry was full already.
    Full,
    /// It had failed, or failed here: nothing is left of it.
    Nothing,
}

impl Waiting {
    pub(super) fn new(commands: Vec<Command>, answer: Answer) -> Self {
        Self { commands: commands.into_iter(), held: None, parts: 0, slot: Slot::Whole(answer) }
    }

    /// Ends a proposal of which nothing more will be handed over.
    pub(super) fn fail(self, error: ProposeError) {
        self.slot.fail(error, self.parts > 0);
    }

    /// Moves commands into the entry until one is empty or the other full.
    fn pour(&mut self, builder: &mut EntryBuilder, gone: &mut Gone) -> Poured {
        if self.slot.has_failed() {
            while let Some(command) = self.next() {
                gone.count(&command);
            }
            return Poured::Nothing;
        }
        let mut poured = 0;
        while let Some(command) = self.next() {
            match builder.push(&command) {
                Ok(()) => {
                    gone.count(&command);
                    poured += 1;
                }
                Err(PushError::Full) if !builder.is_empty() => {
                    self.held = Some(command);
                    break;
                }
                // Checked when it was proposed, and an empty entry takes every sound command.
                Err(PushError::Refused(_) | PushError::Full) => {
                    gone.count(&command);
                    return self.refuse(poured, gone);
                }
            }
        }
        if poured == 0 {
            return Poured::Full;
        }
        let (number, last) = (self.parts, self.held.is_none());
        self.parts += 1;
        let slot = if last { self.slot.take() } else { self.slot.share() };
        let part = Part { slot, commands: poured, number, last };
        if last { Poured::All(part) } else { Poured::Some(part) }
    }

    fn next(&mut self) -> Option<Command> {
        self.held.take().or_else(|| self.commands.next())
    }

    /// Ends a proposal with a command that no entry takes. What was poured of it is applied, and
    /// its replies go to nobody.
    fn refuse(&mut self, poured: usize, gone: &mut Gone) -> Poured {
        while let Some(rest) = self.next() {
            gone.count(&rest);
        }
        self.slot.take().fail(ProposeError::OutcomeUnknown, true);
        let slot = self.slot.take();
        Poured::All(Part { slot, commands: poured, number: self.parts, last: true })
    }
}

impl Slot {
    fn has_failed(&self) -> bool {
        match self {
            Self::Whole(_) => false,
            Self::Split(split) => split.lock().sender.is_none(),
        }
    }

    /// Moves the slot out; what is left behind answers nobody.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Split(Split::new(None)))
    }

    /// A second hold on the slot, for a proposal that goes on in the next entry.
    fn share(&mut self) -> Self {
        let split = match self.take() {
            Self::Split(split) => split,
            Self::Whole(sender) => Split::new(Some(sender)),
        };
        *self = Self::Split(split.clone());
        Self::Split(split)
    }

    /// `begun`: a part before was handed over and committed, so that "nothing happened", which
    /// every error but one says, would be a lie.
    fn fail(self, error: ProposeError, begun: bool) {
        let error = if begun { ProposeError::OutcomeUnknown } else { error };
        match self {
            Self::Whole(answer) => drop(answer.send(Err(error))),
            Self::Split(split) => {
                if let Some(answer) = split.lock().sender.take() {
                    let _ = answer.send(Err(error));
                }
            }
        }
    }

    fn succeed(self, replies: Vec<Reply>, number: usize, last: bool) {
        match self {
            // Nobody waits any more if this fails, which takes nothing back.
            Self::Whole(sender) => drop(sender.send(Ok(replies))),
            Self::Split(split) => split.lock().succeed(replies, number, last),
        }
    }
}

impl Split {
    fn new(sender: Option<Answer>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { replies: Vec::new(), parts: None, sender }))
    }

    fn succeed(&mut self, replies: Vec<Reply>, number: usize, last: bool) {
        if self.replies.len() <= number {
            self.replies.resize_with(number + 1, || None);
        }
        self.replies[number] = Some(replies);
        if last {
            self.parts = Some(number + 1);
        }
        let is_whole = self.parts == Some(self.replies.iter().flatten().count());
        if is_whole && let Some(sender) = self.sender.take() {
            let _ = sender.send(Ok(self.replies.drain(..).flatten().flatten().collect()));
        }
    }
}

/// Gives each proposal its part of the outcome.
pub(super) fn answer(parts: Vec<Part>, outcome: Outcome) {
    let error = match outcome {
        Outcome::Applied(replies) => return share_out(parts, replies),
        Outcome::LeaseExpired => ProposeError::NotLeader { leader: None },
        Outcome::NotLeader(leader) => ProposeError::NotLeader { leader },
        Outcome::Stopped => ProposeError::Stopped,
        Outcome::Unknown => ProposeError::OutcomeUnknown,
    };
    for part in parts {
        part.slot.fail(error.clone(), part.number > 0);
    }
}

fn share_out(mut parts: Vec<Part>, replies: Vec<Reply>) {
    // The whole entry is one proposal's: nothing to copy.
    if parts.len() == 1
        && let Some(part) = parts.pop()
    {
        return part.slot.succeed(replies, part.number, part.last);
    }
    let mut replies = replies.into_iter();
    for part in parts {
        let own: Vec<Reply> = replies.by_ref().take(part.commands).collect();
        debug_assert_eq!(own.len(), part.commands, "one reply a command");
        part.slot.succeed(own, part.number, part.last);
    }
}
