//! What look-ups say of the crowd: whether they name gateways that are dead.

use std::collections::HashSet;

use switchboard_api::limits::ITEMS_PER_BATCH_MAX;
use switchboard_api::v1::{Read, SessionInfo, register_request::Kind};
use switchboard_sdk::{Client, Error};

use super::user;

/// The incarnations that die.
#[derive(Debug, Clone)]
pub(crate) struct Doomed(HashSet<(u32, u64)>);

/// What look-ups of some of the crowd found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Sessions on a gateway that died.
    pub(crate) ghosts: usize,
    /// Users with a session elsewhere.
    pub(crate) live: usize,
}

impl Doomed {
    /// Those of the gateways with these names.
    pub(crate) async fn find(client: &Client, names: &HashSet<&str>) -> Result<Doomed, Error> {
        let all = client.list_gateways(Kind::Gateway, false).await?;
        let doomed = all.iter().filter(|gateway| names.contains(gateway.name.as_str()));
        Ok(Doomed(doomed.map(|gateway| (gateway.gateway_id, gateway.incarnation)).collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn holds(&self, session: &SessionInfo) -> bool {
        self.0.contains(&(session.gateway_id, session.incarnation))
    }

    /// Looks devices of the crowd up.
    pub(crate) async fn look(
        &self,
        client: &Client,
        prefix: &str,
        nths: impl Iterator<Item = usize>,
    ) -> Result<Found, Error> {
        let users: Vec<_> = nths.map(|nth| user(prefix, nth)).collect();
        let mut found = Found::default();
        for batch in users.chunks(ITEMS_PER_BATCH_MAX) {
            let located = client.locate(batch.to_vec(), Read::Lease).await;
            for result in located?.results {
                found.ghosts +=
                    result.sessions.iter().filter(|session| self.holds(session)).count();
                found.live +=
                    usize::from(result.sessions.iter().any(|session| !self.holds(session)));
            }
        }
        Ok(found)
    }
}
