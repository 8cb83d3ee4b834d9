//! `device chat TO`: an interactive chat, a line a message.
//!
//! Own messages are numbered; a line says when one is sent (✓), delivered (✓✓) or read. What the
//! other side writes is shown, acknowledged, and marked as read. Messages of others are shown with
//! their name. Nothing is ever redrawn, so that it also works in a pipe.

use std::collections::HashMap;
use std::io::{BufRead, IsTerminal};

use bytes::Bytes;
use clap::Args;
use switchboard_api::limits::BODY_BYTES_MAX;
use switchboard_device::{
    Device, DeviceOptions, Event, Incoming, Outgoing, ReceiptState, new_message_id,
};
use tokio::sync::mpsc;

use super::{Connected, connect};
use crate::command::name::{DeviceName, user_text};
use crate::output::{Failure, print_line};

/// Chat with somebody: type a line and press Enter
///
/// ✓ a message is sent: it is safe. ✓✓ it is delivered: the other device has it. "read": it was
/// shown. Ctrl-D or /quit ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard device --as alice chat bob
  switchboard device --as bob chat alice")]
pub(super) struct Chat {
    /// With whom
    #[arg(value_name = "TO")]
    to: DeviceName,
}

/// How far an own message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tick {
    Sent,
    Delivered,
    Read,
}

impl Tick {
    fn text(self) -> &'static str {
        match self {
            Tick::Sent => "✓",
            Tick::Delivered => "✓✓",
            Tick::Read => "✓✓ read",
        }
    }
}

/// Own messages by id: the number shown, what was written, how far it came.
#[derive(Debug, Default)]
struct Own(HashMap<[u8; 16], (String, Option<Tick>)>);

impl Own {
    /// The line to show when a message came further than before.
    fn reached(&mut self, id: &[u8; 16], tick: Tick) -> Option<String> {
        let (text, reached) = self.0.get_mut(id)?;
        if *reached >= Some(tick) {
            return None;
        }
        *reached = Some(tick);
        Some(format!("  {} {}", tick.text(), shorten(text)))
    }
}

/// Characters of an own message that its tick repeats.
const SHOWN_CHARS_MAX: usize = 40;

fn shorten(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

/// Text of others must not move the cursor or change the terminal.
fn harmless(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Lines typed ahead of being sent.
const LINES_MAX: usize = 16;

/// Lines of standard input, read by a thread of their own: a blocked read cannot be cancelled, and
/// must not keep the command from ending.
fn typed_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (lines, typed) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let failed = line.is_err();
            if lines.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    typed
}

impl Chat {
    pub(super) async fn run(self, options: DeviceOptions) -> Result<(), Failure> {
        let Connected { device, mut events } = connect(options).await?;
        if std::io::stdin().is_terminal() {
            let to = user_text(&self.to.user);
            eprintln!("connected; type a line to write to {to}, Ctrl-D or /quit to leave");
        }
        let mut lines = typed_lines();
        let mut own = Own::default();
        let mut typing = true;
        let chatted = loop {
            // With the last line typed, what is in the outbox is still sent.
            if !typing && device.stats().outbox == 0 {
                break Ok(());
            }
            tokio::select! {
                line = lines.recv(), if typing => match line {
                    Some(Ok(line)) if line.trim() == "/quit" => typing = false,
                    Some(Ok(line)) => self.write(&device, &mut own, line),
                    Some(Err(error)) => {
                        break Err(Failure::failed(format!("cannot read input: {error}")));
                    }
                    None => typing = false,
                },
                event = events.recv() => match event {
                    Some(event) => if let Err(failure) = self.show(&device, &mut own, event) {
                        break Err(failure);
                    },
                    None => break Err(Failure::failed("the device stopped")),
                },
                _ = tokio::signal::ctrl_c() => break Ok(()),
            }
        };
        device.shutdown().await;
        chatted
    }

    fn write(&self, device: &Device, own: &mut Own, line: String) {
        if line.is_empty() {
            return;
        }
        if line.len() > BODY_BYTES_MAX {
            eprintln!("  too long: a message has at most {BODY_BYTES_MAX} bytes");
            return;
        }
        let message_id = new_message_id();
        let body = Bytes::copy_from_slice(line.as_bytes());
        own.0.insert(message_id, (line, None));
        // What comes of it is told by events.
        drop(device.send(Outgoing {
            message_id,
            to_user: self.to.user.clone(),
            to_device: self.to.device.unwrap_or(0),
            ttl_ms: 0,
            body,
        }));
    }

    fn show(&self, device: &Device, own: &mut Own, event: Event) -> Result<(), Failure> {
        match event {
            Event::Message(message) => show_message(device, &message)?,
            Event::Accepted { message_id, .. } => show_tick(own, &message_id, Tick::Sent)?,
            Event::Receipt { message_id, state, .. } => {
                let tick = match state {
                    ReceiptState::Delivered => Tick::Delivered,
                    ReceiptState::Read => Tick::Read,
                };
                show_tick(own, &message_id, tick)?;
            }
            Event::Refused { message_id, message, .. } => {
                if let Some((text, _)) = own.0.remove(&message_id) {
                    eprintln!("  not sent: {} ({message})", shorten(&text));
                }
            }
            Event::Online { .. } => eprintln!("  connected again"),
            Event::Offline { reason, replaced: true, .. } => {
                return Err(Failure::failed(format!("connected elsewhere: {reason}"))
                    .help("one device has one connection; be another one with --as USER/DEV"));
            }
            Event::Offline { reason, fatal: true, .. } => return Err(Failure::failed(reason)),
            Event::Offline { reason, .. } => eprintln!("  offline: {reason}; connecting again"),
            _ => {}
        }
        Ok(())
    }
}

fn show_message(device: &Device, message: &Incoming) -> Result<(), Failure> {
    print_line(&format!("{}: {}", user_text(&message.from_user), harmless(&message.body)))?;
    device.acknowledge(message.seq);
    device.read(&message.from_user, vec![message.message_id]);
    Ok(())
}

fn show_tick(own: &mut Own, id: &[u8; 16], tick: Tick) -> Result<(), Failure> {
    own.reached(id, tick).map_or(Ok(()), |line| print_line(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_only_go_up() {
        let mut own = Own::default();
        own.0.insert([1; 16], ("hello".into(), None));
        assert_eq!(own.reached(&[1; 16], Tick::Sent).unwrap(), "  ✓ hello");
        assert_eq!(own.reached(&[1; 16], Tick::Read).unwrap(), "  ✓✓ read hello");
        assert_eq!(own.reached(&[1; 16], Tick::Delivered), None);
        assert_eq!(own.reached(&[2; 16], Tick::Sent), None, "not one of ours");
    }

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        assert_eq!(harmless(b"a\x1b[2Jb\nc\td\xff"), "a\u{fffd}[2Jb\u{fffd}c\td\u{fffd}");
    }
}
