//! Replaying conversations through real device connections, and checking what came of them.
//!
//! ```text
//!  file ─load─▶ Corpus ─plan─▶ starts, pauses        Stretches (online / offline, per user)
//!                                  │                        │
//!                             talk: one task a         presence: one task a user
//!                             conversation ──send──▶ Device ◀──┘
//!                                                      │ events
//!                             Checker ◀────────────────┘  ──▶ Report
//! ```
//! [`corpus`], [`load`], [`plan`], [`checker`] and [`ledger`] are pure; [`run`] does the rest. The checker knows a
//! message by its id only, never by what it says, and it sees what an application sees: the device
//! has dropped repeats already.

mod checker;
mod chitchat;
pub(crate) mod corpus;
mod ledger;
pub(crate) mod load;
mod person;
pub(crate) mod plan;
pub(crate) mod progress;
mod report;
pub(crate) mod run;
mod talk;
