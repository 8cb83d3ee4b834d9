//! Who is online, as it changes: look once, then watch.
//!
//! ```sh
//! cargo run -p switchboard-sdk --example presence -- 127.0.0.1:7400 alice bob
//! ```

use std::{env, error::Error};

use bytes::Bytes;
use switchboard_api::v1::{Read, WatchRequest, watch_response::Change};
use switchboard_sdk::{Client, ClientOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let store = arguments.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let users: Vec<Bytes> = arguments.map(Bytes::from).collect();
    let client = Client::connect(&[store], ClientOptions::default())?;
    // Watch first, then look: a change in between is seen at least once.
    let request = WatchRequest { users: users.clone(), ..WatchRequest::default() };
    let mut watch = client.watch_sessions(request)?;
    let located = client.locate(users.clone(), Read::Lease).await?;
    for (user, result) in users.iter().zip(&located.results) {
        println!("{} has {} live sessions", user.escape_ascii(), result.sessions.len());
    }
    while let Some(event) = watch.next().await {
        let event = event?;
        let Some(session) = &event.session else {
            if event.change() == Change::Compacted {
                println!("too far behind: look again");
            }
            continue;
        };
        // The end of a gateway ends all its sessions in one event, which names no device.
        let who = session.device.as_ref().map_or(Bytes::new(), |device| device.user.clone());
        println!("{:?} {} at gateway {}", event.change(), who.escape_ascii(), session.gateway_id);
    }
    Ok(())
}
