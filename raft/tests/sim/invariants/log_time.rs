//! Log time: no replica applies a stamp ahead of the median of all nodes' clocks, but for what the
//! exchange of clocks may be wrong by.

use switchboard_raft::limits::{CLOCK_ANSWER_WAIT_MAX, CLOCK_JUMP_MAX_MS};

use super::{Checked, Replica, broken};

/// By how much log time may be ahead.
const AHEAD_MS_MAX: u64 = CLOCK_JUMP_MAX_MS + CLOCK_ANSWER_WAIT_MAX.as_millis() as u64 / 2;

pub fn look(replica: &Replica<'_>, median_ms: u64) -> Checked {
    let log_time_ms = replica.status.log_time_ms;
    if log_time_ms <= median_ms + AHEAD_MS_MAX {
        return Ok(());
    }
    let (group, id, ahead_ms) = (replica.group, replica.id, log_time_ms - median_ms);
    broken("log time", format!("group {group}, node {id}: {ahead_ms} ms ahead of the clocks"))
}
