//! What clients did to a few users and what they were told, and whether one server doing one thing at
//! a time could have told them so.
//!
//! For tests only: the simulated clusters record histories on simulated time, the test of real
//! processes on real sockets; both ask [`check`] about them.
//!
//! What it is not: a checker of anything but one user's session and mailbox. Users do not share
//! state, so that each user's history is checked alone, which is what makes the search short.
//!
//! ```
//! use switchboard_histories::{Action, History, Outcome, Verdict, check};
//!
//! let mut history = History::default();
//! let send = history.invoke(0, Action::Enqueue { message: 7 });
//! history.finish(send, Outcome::Enqueued { seq: 40, prev_seq: 0, session: None });
//! let look = history.invoke(0, Action::Fetch);
//! history.finish(look, Outcome::Fetched { messages: Vec::new() });
//! assert!(matches!(check(&history, 0), Verdict::Violated(_)), "it must see what was stored before");
//! ```

#![forbid(unsafe_code)]

mod history;
mod linear;

pub use history::{Action, History, Operation, Outcome};
pub use linear::{Verdict, check};
