//! The terminal: keys in, pictures out.
//!
//! Asking and drawing do not wait for each other: a task asks, a thread of its own draws and reads
//! keys. Whatever ends that thread, an error or a panic too, the terminal is given back as it was.

use std::io;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio_util::sync::CancellationToken;

use super::ask::{self, Look, NODES_WAIT_MAX};
use super::view::{Flow, View};
use crate::command::operator::{StoreArgs, interrupted};
use crate::output::Failure;

/// Longest wait for a key before the picture is drawn again; a new sample is shown no later.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// How long the thread that draws may take to end. Several times [`KEY_WAIT`].
const END_WAIT: Duration = Duration::from_secs(1);
/// Looks that wait to be drawn. One: whoever cannot keep up must see the newest.
const LOOKS_MAX: usize = 1;

/// Shows the store until somebody ends it.
pub(super) async fn run(store: &StoreArgs, every: Duration) -> Result<(), Failure> {
    // Not `connect`: a store that is away is no reason to end, it may come.
    let client = store.client(NODES_WAIT_MAX)?;
    let (looks, seen) = mpsc::channel(LOOKS_MAX);
    let stop = CancellationToken::new();
    let asking = tokio::spawn(ask::forever(client, every, looks));
    let signals = tokio::spawn(stop_at_signal(stop.clone()));
    let view = View::new(store.nodes());
    let stopped = stop.clone();
    let drawing = tokio::task::spawn_blocking(move || on_terminal(view, seen, &stop));
    let ended = tokio::select! {
        drawn = drawing => match drawn {
            Ok(ended) => {
                ended.map_err(|error| Failure::failed(format!("cannot use the terminal: {error}")))
            }
            Err(_) => Err(Failure::failed("the view has ended by a fault of its own")),
        },
        () = left_behind(&stopped) => Ok(()),
    };
    asking.abort();
    signals.abort();
    ended
}

/// Resolves when the thread that draws was told to end and has not. Where the terminal has gone,
/// crossterm reads its end again and again and never returns.
async fn left_behind(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(END_WAIT).await;
    // Should it be there after all. There is nobody left to tell that it is not.
    let _ = ratatui::try_restore();
}

/// Ctrl-C is a key while the terminal is in raw mode; these come from elsewhere. Left to themselves
/// they would end the process with the terminal still in that mode.
async fn stop_at_signal(stop: CancellationToken) {
    let caught = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signal) => _ = signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = interrupted() => {}
        () = caught(SignalKind::terminate()) => {}
        () = caught(SignalKind::hangup()) => {}
    }
    stop.cancel();
}

fn on_terminal(
    mut view: View,
    mut looks: mpsc::Receiver<Look>,
    stop: &CancellationToken,
) -> io::Result<()> {
    // It also gives the terminal back before the words of a panic are printed.
    let ended = ratatui::try_init().and_then(|mut terminal| {
        let ended = turns(&mut terminal, &mut view, &mut looks, stop);
        let shown = terminal.show_cursor();
        // Where the terminal is gone, dropping it would panic: it prints that it cannot show the cursor.
        std::mem::forget(terminal);
        ended.and(shown)
    });
    let restored = ratatui::try_restore();
    ended.and(restored)
}

fn turns(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    looks: &mut mpsc::Receiver<Look>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let begun = Instant::now();
    while !stop.is_cancelled() {
        match looks.try_recv() {
            Ok(look) => view.take(look, begun.elapsed()),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other("nothing asks the store any more"));
            }
        }
        // A terminal that was resized is measured anew by each drawing.
        terminal.draw(|frame| view.draw(frame, begun.elapsed()))?;
        if event::poll(KEY_WAIT)?
            && let Event::Key(key) = event::read()?
            && view.key(key) == Flow::End
        {
            return Ok(());
        }
    }
    Ok(())
}
