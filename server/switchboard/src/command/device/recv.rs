//! `device recv`: what waits in the mailbox, an object a line.

use clap::Args;
use serde::Serialize;
use switchboard_device::{DeviceOptions, Event, Incoming};

use super::{Connected, connect};
use crate::command::name::{base64_text, id_text, user_text};
use crate::output::{Failure, print_line};

/// Receive what waits, as JSON objects, one a line
///
/// Each message is printed and then acknowledged, so that it comes again if it could not be
/// printed. Ends when all that waited has come, unless told to follow.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard device --as bob recv
  switchboard device --as bob recv --follow | jq -r .text")]
pub(super) struct Recv {
    /// Go on until interrupted
    #[arg(long, short)]
    follow: bool,
}

/// A line of output; the field names are part of the contract.
#[derive(Debug, Serialize)]
struct Line {
    message_id: String,
    from: String,
    from_device: u16,
    seq: u64,
    sent_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl Line {
    fn new(message: &Incoming) -> Line {
        let text = std::str::from_utf8(&message.body).ok();
        Line {
            message_id: id_text(&message.message_id),
            from: user_text(&message.from_user),
            from_device: message.from_device,
            seq: message.seq,
            sent_at_ms: message.enqueued_at_ms,
            text: text.map(str::to_owned),
            body_base64: text.is_none().then(|| base64_text(&message.body)),
        }
    }
}

impl Recv {
    pub(super) async fn run(self, options: DeviceOptions) -> Result<(), Failure> {
        let Connected { device, mut events } = connect(options).await?;
        let received = loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = tokio::signal::ctrl_c() => break Ok(()),
            };
            match event {
                Some(Event::Message(message)) => {
                    if let Err(failure) = print(&message) {
                        break Err(failure);
                    }
                    device.acknowledge(message.seq);
                }
                Some(Event::Drained) if !self.follow => break Ok(()),
                Some(Event::Offline { reason, replaced, fatal, .. }) => {
                    if replaced || fatal || !self.follow {
                        break Err(Failure::failed(format!("disconnected: {reason}")));
                    }
                    eprintln!("disconnected: {reason}; connecting again");
                }
                Some(_) => {}
                None => break Err(Failure::failed("the device stopped")),
            }
        };
        device.shutdown().await;
        received
    }
}

fn print(message: &Incoming) -> Result<(), Failure> {
    let line = serde_json::to_string(&Line::new(message))
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    print_line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(body: &'static [u8]) -> Incoming {
        Incoming {
            message_id: [1; 16],
            from_user: "alice".into(),
            from_device: 1,
            seq: 7,
            enqueued_at_ms: 9,
            expires_at_ms: 0,
            body: body.into(),
        }
    }

    #[test]
    fn text_is_text_and_the_rest_is_base64() {
        let line = serde_json::to_value(Line::new(&incoming("é".as_bytes()))).unwrap();
        assert_eq!(line["text"], "é");
        assert_eq!(line["from"], "alice");
        assert_eq!(line["message_id"], "01010101-0101-0101-0101-010101010101");
        assert!(line.get("body_base64").is_none());
        let line = serde_json::to_value(Line::new(&incoming(&[0xff]))).unwrap();
        assert_eq!(line["body_base64"], "/w==");
        assert!(line.get("text").is_none());
    }
}
