//! What a node takes while its disk is almost full.
//!
//! The log tells when only its reserve is left. From then on a leader refuses what stores more
//! (messages, sessions), so that acks, purges, the end of sessions and a checkpoint, which free
//! space, still find room; on a disk that is full to the last segment it refuses everything, and a
//! follower takes no entries: its leader sends them again. A node that is full delays its callers and does
//! not fail.

use std::sync::atomic::{AtomicU8, Ordering};

use switchboard_engine::Command;
use switchboard_engine::log::SpaceLevel;

/// The space on a node's disk, as last looked at; shared by its groups.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    level: AtomicU8,
}

impl Admission {
    /// Takes note of a look at the disk.
    pub(crate) fn note(&self, level: SpaceLevel) {
        let level = match level {
            SpaceLevel::Ample => 0,
            SpaceLevel::Reserve => 1,
            SpaceLevel::Full => 2,
        };
        self.level.store(level, Ordering::Relaxed);
    }

    /// Whether not even another segment of the log can be made.
    pub(crate) fn is_full(&self) -> bool {
        self.level.load(Ordering::Relaxed) == 2
    }

    /// Whether all of `commands` may be proposed now.
    pub(crate) fn admits(&self, commands: &[Command]) -> bool {
        match self.level.load(Ordering::Relaxed) {
            0 => true,
            1 => !commands.iter().any(stores_more),
            _ => false,
        }
    }
}

fn stores_more(command: &Command) -> bool {
    match command {
        Command::Enqueue(_) | Command::Claim(_) => true,
        Command::Init(_)
        | Command::SetRules(_)
        | Command::Release(_)
        | Command::Unregister(_)
        | Command::Sweep(_)
        | Command::Ack(_)
        | Command::Purge(_)
        | Command::Tick
        | Command::InitCluster(_)
        | Command::SetNode(_)
        | Command::RegisterGateway(_)
        | Command::RaiseFormat(_)
        | Command::SetNodeState(_)
        | Command::SetPlacement(_)
        | Command::BeginMoves(_)
        | Command::NoteMove(_)
        | Command::EndMove(_)
        | Command::ReadmitNode(_)
        | Command::EndIncarnation(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use switchboard_engine::DeviceId;
    use switchboard_engine::command::{Claim, Release};

    use super::*;

    #[test]
    fn what_frees_space_is_admitted_into_the_reserve() {
        let device = DeviceId::new("alice", 1);
        let release = || Command::Release(Release { device: device.clone(), epoch: 1 });
        let claim = Command::Claim(Claim {
            device: device.clone(),
            gateway_id: 1,
            incarnation: 1,
            connection_id: 1,
            push_token: bytes::Bytes::new(),
        });
        let admission = Admission::default();
        assert!(admission.admits(&[release(), claim.clone()]));
        admission.note(SpaceLevel::Reserve);
        assert!(admission.admits(&[release(), Command::Tick]));
        assert!(!admission.admits(&[release(), claim]));
        admission.note(SpaceLevel::Full);
        assert!(!admission.admits(&[release()]));
        admission.note(SpaceLevel::Ample);
        assert!(admission.admits(&[release()]));
    }
}
