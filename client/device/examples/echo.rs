//! A service that talks to users like a device does: it answers each message and marks it read.
//!
//! ```sh
//! cargo run -p switchboard-device --example echo -- 127.0.0.1:7410 echo
//! switchboard device --as alice chat echo
//! ```

use std::{env, error::Error};

use switchboard_device::{Device, DeviceOptions, Event, Outgoing, new_message_id};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let gateway = arguments.next().unwrap_or_else(|| "127.0.0.1:7410".to_owned());
    let name = arguments.next().unwrap_or_else(|| "echo".to_owned());
    let options = DeviceOptions::new(name, 1, vec![gateway.parse()?]);
    let (device, mut events) = Device::start(options);
    while let Some(event) = events.recv().await {
        match event {
            Event::Online { backlog, .. } => println!("online, {backlog} messages waited"),
            Event::Message(message) => {
                device.read(&message.from_user, vec![message.message_id]);
                // The outbox keeps it until a gateway accepts it, so there is nothing to wait for.
                drop(device.send(Outgoing {
                    message_id: new_message_id(),
                    to_user: message.from_user,
                    to_device: 0,
                    ttl_ms: 0,
                    body: message.body,
                }));
            }
            Event::Offline { reason, fatal: true, .. } => return Err(reason.into()),
            _ => {}
        }
    }
    Ok(())
}
