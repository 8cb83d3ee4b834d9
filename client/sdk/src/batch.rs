//! Unary batches: dealt out to the leaders, retried, and put together again.

use std::{future::Future, sync::Arc};

use futures::future::join_all;
use switchboard_api::{limits::ITEMS_PER_BATCH_MAX, v1::ItemStatus, validate};
use tonic::Status;

use crate::{
    Error,
    core::{Core, Repeat},
    node::Node,
    route::{Merge, Part, split},
};

/// Makes one call of up to 1,024 items. Those that got no answer after all retries are answered
/// UNAVAILABLE; a part that was refused as a whole fails the call.
///
/// Each part goes to the node that leads when the call starts; that node passes items on whose
/// leader has changed since.
pub(crate) async fn batch<T, R, F>(
    core: &Core,
    items: Vec<T>,
    user: impl Fn(&T) -> &[u8],
    call: impl Fn(Arc<Node>, Vec<T>) -> F,
    refused: impl Fn(ItemStatus) -> R,
) -> Result<Vec<R>, Error>
where
    T: Clone,
    F: Future<Output = Result<Vec<R>, Status>>,
{
    validate::at_most("items", items.len(), ITEMS_PER_BATCH_MAX)?;
    let count = items.len();
    let parts = split(&core.routes(), items, 0, &user);
    let mut merge = Merge::new(count, parts.len());
    let calls = parts.into_iter().map(|part| answer(core, part, &user, &call, &refused));
    let mut rejected = None;
    for (places, answers) in join_all(calls).await {
        match answers {
            Ok(answers) => {
                merge.add(&places, answers);
            }
            Err(error) => rejected = Some(error),
        }
    }
    match rejected {
        Some(error) => Err(error),
        None => Ok(merge.finish(|| refused(ItemStatus::Unavailable))),
    }
}

async fn answer<T, R, F>(
    core: &Core,
    part: Part<T>,
    user: &impl Fn(&T) -> &[u8],
    call: &impl Fn(Arc<Node>, Vec<T>) -> F,
    refused: &impl Fn(ItemStatus) -> R,
) -> (Vec<usize>, Result<Vec<R>, Error>)
where
    T: Clone,
    F: Future<Output = Result<Vec<R>, Status>>,
{
    let Part { node, items, places } = part;
    let attempt = |attempt: usize| {
        // The leader first; after a failure whoever leads by then, or any other.
        let node = match (attempt, items.first()) {
            (0, _) | (_, None) => node.clone(),
            (_, Some(first)) => core.routes().for_user(user(first), 0).clone(),
        };
        (node.clone(), call(node, items.clone()))
    };
    let answers = match core.retrying(Repeat::Harmless, attempt).await {
        Ok(answers) => Ok(answers),
        Err(Error::Rejected { reason, message }) => Err(Error::Rejected { reason, message }),
        // Even if the last attempt was refused early, one before it may have happened.
        Err(Error::Retryable { .. } | Error::OutcomeUnknown { .. }) => {
            Ok(items.iter().map(|_| refused(ItemStatus::Unavailable)).collect())
        }
    };
    (places, answers)
}
