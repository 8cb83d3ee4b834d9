//! From an accepted socket to a device that is taken in: Hello, token, claim, Welcome.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use switchboard_api::{
    device::v1::{
        Hello, Redirect, ServerFrame, Welcome, client_frame, error::Code, redirect::Reason,
        server_frame::Frame,
    },
    v1::{DeviceRef, ItemStatus, SessionInfo, claim_request, claim_response},
    validate,
};
use switchboard_sdk::Lease;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::timeout,
};

use crate::{
    conversation::{Conversation, Ending},
    delivery::Claimed,
    gateway::{Claim, Gateway},
    limits::UNAVAILABLE_RETRY_AFTER,
    meters::Meters,
    peers::Peer,
    socket::{Moved, Socket, SocketError},
};

/// Why a device was not taken in, as it is told.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Nothing can be told.
    Gone,
    Frame(Box<Frame>),
}

/// A peer in the table, for as long as this lives.
pub(crate) struct Listed {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) peer: Arc<Peer>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.gateway.peers.remove(self.peer.connection_id);
    }
}

/// A device that was taken in.
pub(crate) struct TakenIn {
    pub(crate) listed: Listed,
    pub(crate) conversation: Box<Conversation>,
}

pub(crate) fn refusal(code: Code, message: impl Into<String>, retry_after: Duration) -> Refused {
    let Ending::Error(error) = Ending::error(code, message, retry_after) else {
        return Refused::Gone;
    };
    Refused::Frame(Box::new(Frame::Error(error)))
}

pub(crate) fn redirect(reason: Reason, retry_after_ms: u64) -> Frame {
    Meters::redirected(reason);
    let (address, reason) = (String::new(), reason.into());
    Frame::Redirect(Redirect { address, retry_after_ms, reason })
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Takes a device in, and queues its Welcome.
pub(crate) async fn take_in<S: AsyncRead + AsyncWrite + Unpin + Send>(
    gateway: &Arc<Gateway>,
    socket: &mut Socket<S>,
) -> Result<TakenIn, Refused> {
    let limit = Duration::from_millis(gateway.config.hello_timeout_ms);
    let hello = match timeout(limit, first_frame(socket)).await {
        Ok(Ok(Some(client_frame::Frame::Hello(hello)))) => hello,
        Ok(Ok(Some(_))) => {
            return Err(refusal(Code::Protocol, "the first frame is no Hello", Duration::ZERO));
        }
        Ok(Ok(None)) => return Err(Refused::Gone),
        Ok(Err(error)) => return Err(broken(gateway, &error)),
        Err(_) => return Err(no_hello(limit)),
    };
    validate::hello(&hello)
        .map_err(|fault| refusal(Code::Invalid, fault.to_string(), Duration::ZERO))?;
    gateway
        .verifier
        .check(&hello)
        .map_err(|why| refusal(why.code(), why.to_string(), Duration::ZERO))?;
    claim(gateway, hello, socket).await
}

/// What a device is told that says nothing.
pub(crate) fn no_hello(limit: Duration) -> Refused {
    refusal(Code::HandshakeTimeout, format!("no Hello within {limit:?}"), Duration::ZERO)
}

/// What the device is told about frames that break the protocol.
pub(crate) fn broken(gateway: &Gateway, error: &SocketError) -> Refused {
    gateway.meters.frames_refused.increment(1);
    error.code().map_or(Refused::Gone, |code| refusal(code, error.to_string(), Duration::ZERO))
}

async fn first_frame<S: AsyncRead + AsyncWrite + Unpin + Send>(
    socket: &mut Socket<S>,
) -> Result<Option<client_frame::Frame>, SocketError> {
    loop {
        match socket.drive(true).await? {
            Moved::Frame(frame) => {
                // A frame of no kind known here is none of the first one's business.
                if let Some(frame) = frame.frame {
                    return Ok(Some(frame));
                }
            }
            Moved::End => return Ok(None),
            Moved::Flushed => {}
        }
    }
}

async fn claim<S: AsyncRead + AsyncWrite + Unpin + Send>(
    gateway: &Arc<Gateway>,
    hello: Hello,
    socket: &mut Socket<S>,
) -> Result<TakenIn, Refused> {
    let lease = held(gateway)?;
    gateway.admit(lease.reconnect_budget_per_s).map_err(|wait| {
        gateway.meters.logins_held_back.increment(1);
        let message = "too many devices come at once; come back then";
        refusal(Code::Overloaded, message, wait)
    })?;
    // Copied: the frame's buffer would live as long as the device is connected.
    let user = Bytes::copy_from_slice(&hello.user);
    let device = DeviceRef { user, device: hello.device };
    // Listed before the claim, so that a push that follows it finds the connection.
    let peer = gateway.peers.add(&device, lease.incarnation);
    let listed = Listed { gateway: gateway.clone(), peer: peer.clone() };
    let (done, answer) = oneshot::channel();
    let claim = Claim {
        gateway_id: lease.gateway_id,
        incarnation: lease.incarnation,
        item: claim_request::Item {
            device: Some(device.clone()),
            connection_id: peer.connection_id,
            push_token: hello.push_token,
        },
    };
    let submitted = gateway.claims.submit(claim, |result| {
        // The task waits for it, come what may.
        let _ = done.send(result);
    });
    let result = match submitted {
        Ok(()) => answer.await.map_err(|_| Refused::Gone)?,
        Err(_) => return Err(unavailable(gateway, Code::Overloaded)),
    };
    let epoch = claimed(gateway, &result)?;
    peer.set_epoch(epoch);
    if let Some(session) = result.replaced.clone() {
        // A claim may be made long after the device has gone to another gateway.
        let gone = socket.has_ended();
        gateway.replaced(&peer, session_of(session, &device), gone);
        if gone {
            gateway.release(peer.session());
            return Err(Refused::Gone);
        }
    }
    // The lease may have ended meanwhile; then the session has ended with it.
    if !gateway.lease.borrow().is_held() || gateway.lease.borrow().incarnation != lease.incarnation
    {
        return Err(Refused::Frame(Box::new(redirect(Reason::LeaseLost, gateway.spread()))));
    }
    gateway.meters.claims.increment(1);
    let welcome = Frame::Welcome(Welcome {
        epoch,
        server_time_ms: unix_ms(),
        keepalive_ms: gateway.config.keepalive_ms,
        backlog: result.backlog,
    });
    if socket.queue(&ServerFrame { frame: Some(welcome) }).is_err() {
        gateway.release(peer.session());
        return Err(Refused::Gone);
    }
    let window = match hello.window {
        0 => gateway.config.window_default,
        asked => validate::window(asked),
    };
    let claimed = Claimed { epoch, tail: result.tail };
    let seed = rand::random();
    let conversation = Box::new(Conversation::new(device, claimed, window, seed));
    Ok(TakenIn { listed, conversation })
}

fn held(gateway: &Gateway) -> Result<Lease, Refused> {
    if gateway.draining.is_cancelled() || gateway.drained.is_on() {
        let spread = rand::random_range(0..=gateway.spread());
        return Err(Refused::Frame(Box::new(redirect(Reason::Draining, spread))));
    }
    let lease = *gateway.lease.borrow();
    if lease.is_held() { Ok(lease) } else { Err(unavailable(gateway, Code::Unavailable)) }
}

fn claimed(gateway: &Gateway, result: &claim_response::Result) -> Result<u64, Refused> {
    match result.status() {
        ItemStatus::Ok => Ok(result.epoch),
        ItemStatus::UnknownGateway => {
            Err(Refused::Frame(Box::new(redirect(Reason::LeaseLost, gateway.spread()))))
        }
        ItemStatus::Invalid => {
            let message = "the store refused this device (it may be one too many of its user)";
            Err(refusal(Code::Invalid, message, Duration::ZERO))
        }
        ItemStatus::Overloaded => Err(unavailable(gateway, Code::Overloaded)),
        _ => Err(unavailable(gateway, Code::Unavailable)),
    }
}

fn unavailable(gateway: &Gateway, code: Code) -> Refused {
    gateway.meters.claims_failed.increment(1);
    let spread = Duration::from_millis(rand::random_range(0..=gateway.spread()));
    let message = "the store cannot take this device in now";
    refusal(code, message, UNAVAILABLE_RETRY_AFTER + spread)
}

fn session_of(session: SessionInfo, device: &DeviceRef) -> SessionInfo {
    SessionInfo { device: Some(session.device.unwrap_or_else(|| device.clone())), ..session }
}
