//! The two kinds of pipelined calls: `EnqueueStream` and `LocateStream`.

use bytes::Bytes;
use switchboard_api::{
    LocateStreamResponse,
    limits::GRPC_MESSAGE_BYTES_MAX,
    v1::{
        EnqueueRequest, EnqueueStreamRequest, EnqueueStreamResponse, ItemStatus, LocateRequest,
        LocateStreamRequest, Read, enqueue_request, enqueue_response, locate_response,
        mailbox_service_client::MailboxServiceClient, session_service_client::SessionServiceClient,
    },
};
use tonic::{Status, Streaming, transport::Channel};

use crate::lane::{Answers, Call, Outbound};

/// `MailboxService.EnqueueStream`.
pub(crate) struct Enqueue;

impl Call for Enqueue {
    const NAME: &'static str = "enqueue";
    type Item = enqueue_request::Item;
    type Answer = enqueue_response::Result;
    type Class = ();
    type Request = EnqueueStreamRequest;
    type Response = EnqueueStreamResponse;

    fn item_bytes(item: &Self::Item) -> usize {
        let user = |device: &Option<switchboard_api::v1::DeviceRef>| {
            device.as_ref().map_or(0, |device| device.user.len())
        };
        item.body.len() + item.message_id.len() + user(&item.to) + user(&item.from)
    }

    fn request(id: u64, (): (), items: Vec<Self::Item>) -> Self::Request {
        EnqueueStreamRequest { id, request: Some(EnqueueRequest { items }) }
    }

    fn response(response: Self::Response) -> (u64, Answers<Self::Answer>) {
        let answers = response.response.unwrap_or_default().results;
        (response.id, Answers { answers, staleness_ms: 0 })
    }

    fn refused(status: ItemStatus) -> Self::Answer {
        enqueue_response::Result { status: status.into(), ..Default::default() }
    }

    async fn open(
        channel: Channel,
        outbound: Outbound<Self>,
    ) -> Result<Streaming<Self::Response>, Status> {
        let mut client =
            MailboxServiceClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        Ok(client.enqueue_stream(outbound).await?.into_inner())
    }
}

/// `SessionService.LocateStream`.
pub(crate) struct Locate;

impl Call for Locate {
    const NAME: &'static str = "locate";
    type Item = Bytes;
    type Answer = locate_response::Result;
    type Class = Read;
    type Request = LocateStreamRequest;
    type Response = LocateStreamResponse;

    fn item_bytes(user: &Bytes) -> usize {
        user.len()
    }

    fn request(id: u64, read: Read, users: Vec<Bytes>) -> Self::Request {
        LocateStreamRequest { id, request: Some(LocateRequest { users, read: read.into() }) }
    }

    fn response(response: Self::Response) -> (u64, Answers<Self::Answer>) {
        let inner = response.response.unwrap_or_default().into_message().unwrap_or_default();
        (response.id, Answers { answers: inner.results, staleness_ms: inner.staleness_ms })
    }

    fn refused(status: ItemStatus) -> Self::Answer {
        locate_response::Result { status: status.into(), ..Default::default() }
    }

    async fn open(
        channel: Channel,
        outbound: Outbound<Self>,
    ) -> Result<Streaming<Self::Response>, Status> {
        let mut client =
            SessionServiceClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        Ok(client.locate_stream(outbound).await?.into_inner())
    }
}
