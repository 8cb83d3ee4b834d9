//! All that a gateway does for one device, driven by bytes: see the gateway's module `fuzzing`.

use crate::Seed;

/// A conversation with pushes that are acknowledged, and one with losses, sends and answers.
pub fn seeds() -> Vec<Seed> {
    let quiet = [8, 2, 3, 1, 9, 0, 0, 6, 0, 0, 7, 1].repeat(8);
    let busy: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(37)).collect();
    vec![("quiet", quiet), ("busy", busy)]
}

/// Checks one conversation.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    switchboard_gateway::fuzzing::conversation(data);
}
