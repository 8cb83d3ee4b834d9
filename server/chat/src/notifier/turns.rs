//! Who may attempt a request now: so many at once, and so many of them at one origin, so that one
//! that does not answer leaves turns to the others.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use hyper::Uri;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// See the module.
pub(crate) struct Turns {
    all: Semaphore,
    origin_max: usize,
    /// Those that requests are under way to. A lock, because each request looks its own up; held for
    /// a few moves.
    origins: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The turns at one origin. Held as long as a request is under way, those that wait to be attempted
/// again included.
pub(crate) struct Origin {
    turns: Arc<Turns>,
    here: Arc<Semaphore>,
}

/// For one attempt.
pub(crate) struct Turn<'a> {
    _here: SemaphorePermit<'a>,
    _all: SemaphorePermit<'a>,
}

impl Turns {
    pub(crate) fn new(max: usize, origin_max: usize) -> Arc<Self> {
        Arc::new(Self { all: Semaphore::new(max), origin_max, origins: Mutex::default() })
    }

    pub(crate) fn origin(self: &Arc<Self>, uri: &Uri) -> Origin {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let name = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        let mut origins = self.origins.lock();
        let known = origins.get(&name).and_then(Weak::upgrade);
        let here = known.unwrap_or_else(|| {
            origins.retain(|_, origin| origin.strong_count() > 0);
            let here = Arc::new(Semaphore::new(self.origin_max));
            origins.insert(name, Arc::downgrade(&here));
            here
        });
        Origin { turns: self.clone(), here }
    }
}

impl Origin {
    /// Whoever waits for its origin takes no turn from another. `None` is never seen: nobody closes
    /// the semaphores.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        let here = self.here.acquire().await.ok()?;
        let all = self.turns.all.acquire().await.ok()?;
        Some(Turn { _here: here, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn origin(turns: &Arc<Turns>, uri: &'static str) -> Origin {
        turns.origin(&Uri::from_static(uri))
    }

    #[test]
    fn an_origin_that_does_not_answer_leaves_turns_to_others() {
        let turns = Turns::new(3, 2);
        let slow = origin(&turns, "https://slow.example.org/1");
        let same = origin(&turns, "https://SLOW.example.org:443/2");
        let held = [slow.turn().now_or_never().unwrap(), same.turn().now_or_never().unwrap()];
        assert!(slow.turn().now_or_never().is_none());
        let other = origin(&turns, "https://other.example.org/");
        let turn = other.turn().now_or_never().expect("a turn that the slow one cannot take");
        assert!(other.turn().now_or_never().is_none(), "no more than there are in all");
        drop(held);
        assert!(other.turn().now_or_never().is_some());
        drop(turn);
    }

    #[test]
    fn an_origin_that_nothing_is_under_way_to_is_forgotten() {
        let turns = Turns::new(3, 2);
        drop(origin(&turns, "https://a.example.org/"));
        let _kept = origin(&turns, "https://b.example.org/");
        drop(origin(&turns, "https://c.example.org/"));
        let _last = origin(&turns, "https://d.example.org/");
        assert_eq!(turns.origins.lock().len(), 2);
    }
}
