//! `Probe`: what this node's disk and its ways to the other nodes are like, measured while it serves.
//!
//! It is gentle: small writes and calls one after the other, at most so many a second, to a file that has
//! no name and to nodes that are asked for the time. One probe of a node at a time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use switchboard_api::v1::{self, forwarded_answer::Answer, forwarded_call::Call, probe_response};
use switchboard_raft::NodeId;
use tonic::Status;

use crate::{errors, limits, service::Service};

/// What one write takes: a block, as the smallest frame of the log.
const BLOCK: [u8; 4096] = [0x5a; 4096];

impl Service {
    /// Measures this node's disk and its ways to the others.
    pub(crate) async fn probe(
        &self,
        request: v1::ProbeRequest,
    ) -> Result<v1::ProbeResponse, Status> {
        let _one_at_a_time =
            self.probes.try_acquire().map_err(|_| errors::probe_under_way(self.node.node_id()))?;
        let syncs = match request.syncs {
            0 => limits::PROBE_SYNCS,
            asked => asked.min(limits::PROBE_SYNCS_MAX),
        };
        let dir = self.data.clone();
        let syncing = tokio::task::spawn_blocking(move || time_syncs(&dir, syncs));
        let own = self.node.node_id();
        let others = self.node.members().into_iter().filter(|member| member.node_id != own);
        let peers = join_all(others.map(|member| self.probe_peer(member.node_id))).await;
        let sync_us = syncing.await.map_err(|error| errors::internal(error.to_string()))?;
        let sync_us = sync_us.map_err(|error| errors::not_probed(own, &error))?;
        Ok(v1::ProbeResponse { node_id: own, sync_us, peers })
    }

    /// Asks another node for the time, again and again, by the way that requests are passed on.
    async fn probe_peer(&self, node_id: NodeId) -> probe_response::Peer {
        let mut peer = probe_response::Peer { node_id, ..Default::default() };
        let mut shortest = Duration::MAX;
        for _ in 0..limits::PROBE_CALLS {
            let take = |answer| match answer {
                Answer::Clock(clock) => Some(clock),
                _ => None,
            };
            let (begun, before_ms) = (Instant::now(), self.clock.unix_ms());
            let Ok(clock) = self.hop(node_id, Call::Clock(v1::ClockRequest {}), take).await else {
                break;
            };
            let (took, after_ms) = (begun.elapsed(), self.clock.unix_ms());
            peer.round_trip_us.push(micros(took));
            // The shorter the trip, the less is unknown of when the other clock was read.
            if took < shortest {
                shortest = took;
                let between = before_ms.midpoint(after_ms);
                peer.clock_ahead_ms = clock.unix_ms.wrapping_sub(between).cast_signed();
            }
            tokio::time::sleep(limits::PROBE_PAUSE).await;
        }
        peer
    }

    /// This node's clock.
    pub(crate) fn clock_here(&self) -> v1::ClockResponse {
        v1::ClockResponse { unix_ms: self.clock.unix_ms() }
    }
}

/// How long a write of a block and its sync take, each.
fn time_syncs(dir: &Path, syncs: u32) -> std::io::Result<Vec<u32>> {
    // It loses its name at once, so that nothing is left whatever happens.
    let file = nameless(dir)?;
    // Blocks that are there already, as in a segment of the log: a sync then writes no metadata.
    file.write_all_at(&BLOCK, 0)?;
    file.sync_all()?;
    let mut took = Vec::with_capacity(syncs as usize);
    for _ in 0..syncs {
        std::thread::sleep(limits::PROBE_PAUSE);
        let begun = Instant::now();
        file.write_all_at(&BLOCK, 0)?;
        file.sync_data()?;
        took.push(micros(begun.elapsed()));
    }
    Ok(took)
}

fn nameless(dir: &Path) -> std::io::Result<File> {
    let path = dir.join("probe");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_timed_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let took = time_syncs(dir.path(), 3).unwrap();
        assert_eq!(took.len(), 3);
        assert!(took.iter().all(|us| *us > 0), "{took:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
