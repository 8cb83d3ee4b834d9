//! Looking users up: what one node is asked, and who is asked next where any replica will do.

use bytes::Bytes;
use switchboard_api::v1::{ItemStatus, Read, locate_response::Result as Answer};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    calls::Locate,
    core::Core,
    lane::{Answers, Call as _},
    node::Node,
    route::{Part, Routes},
};

/// The places of a part and what is found. A LOCAL read goes on to the other nodes, each once, for the
/// users of whom nobody could tell yet.
pub(crate) async fn part(
    core: &Core,
    routes: &Routes,
    part: Part<Bytes>,
    read: Read,
) -> (Vec<usize>, Answers<Answer>) {
    let Part { node, items: users, places } = part;
    if read != Read::Local || routes.is_single() {
        return (places, ask(&node, read, users).await);
    }
    let deadline = Instant::now() + core.options.deadline;
    let mut found = ask_in_time(core, &node, &users, deadline).await;
    for node in routes.others(&node) {
        let open = unanswered(&found.answers);
        if open.is_empty() || Instant::now() >= deadline {
            break;
        }
        let again: Vec<_> = open.iter().filter_map(|at| users.get(*at).cloned()).collect();
        let more = ask_in_time(core, node, &again, deadline).await;
        found.staleness_ms = found.staleness_ms.max(more.staleness_ms);
        for (at, answer) in open.into_iter().zip(more.answers) {
            if let Some(place) = found.answers.get_mut(at) {
                *place = answer;
            }
        }
    }
    (places, found)
}

/// A LOCAL read of one node, which is given up when it takes long.
async fn ask_in_time(
    core: &Core,
    node: &Node,
    users: &[Bytes],
    deadline: Instant,
) -> Answers<Answer> {
    let until = deadline.min(Instant::now() + core.patience());
    match timeout_at(until, ask(node, Read::Local, users.to_vec())).await {
        Ok(found) => found,
        Err(_) => {
            node.health.silent();
            unavailable(users.len())
        }
    }
}

async fn ask(node: &Node, read: Read, users: Vec<Bytes>) -> Answers<Answer> {
    let count = users.len();
    let (done, found) = oneshot::channel();
    let done = move |answers| {
        // Whoever asked may have turned to another node.
        let _ = done.send(answers);
    };
    node.locate.submit(read, users, Box::new(done));
    found.await.unwrap_or_else(|_| unavailable(count))
}

fn unavailable(count: usize) -> Answers<Answer> {
    let answers = (0..count).map(|_| Locate::refused(ItemStatus::Unavailable)).collect();
    Answers { answers, staleness_ms: 0 }
}

fn unanswered(answers: &[Answer]) -> Vec<usize> {
    let places = answers.iter().enumerate();
    let open = places.filter(|(_, answer)| answer.status() == ItemStatus::Unavailable);
    open.map(|(at, _)| at).collect()
}
