//! Lines on standard input, for workers that their parent speaks to.

use std::io::BufRead as _;

use tokio::sync::mpsc;

/// Lines that wait to be taken.
const WAITING_MAX: usize = 16;

/// The lines, as they come; the channel ends with the input. They are read by a thread of its own, which
/// ends with the process: nothing else can end a read of standard input.
pub(crate) fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || {
        let input = std::io::stdin().lock().lines();
        for line in input.map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
