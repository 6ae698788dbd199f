//! `envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources`: one stream, both ends.

use std::pin::Pin;

use http::{Request, Response, uri::PathAndQuery};
use tonic::{
    Status, Streaming,
    body::Body,
    client::{Grpc as ClientGrpc, GrpcService},
    codegen::{Body as HttpBody, Bytes, StdError, tokio_stream::Stream},
    server::{Grpc as ServerGrpc, StreamingService},
};

use crate::{
    codec::Counting,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

/// The only method's path.
pub const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What a server sends.
pub type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

/// Opens the stream over `channel`. The metadata of `requests`, such as the token, goes with it.
///
/// # Errors
/// The server's status, or [`tonic::Code::Unavailable`] where it could not be asked.
pub async fn open<T, S>(
    channel: T,
    requests: tonic::Request<S>,
    max_message: usize,
) -> Result<Streaming<DeltaDiscoveryResponse>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
    S: Stream<Item = DeltaDiscoveryRequest> + Send + 'static,
{
    let mut client = ClientGrpc::new(channel).max_decoding_message_size(max_message);
    client.ready().await.map_err(|error| Status::unavailable(error.into().to_string()))?;
    let codec = Counting::default();
    let answer = client.streaming(requests, PathAndQuery::from_static(PATH), codec).await?;
    Ok(answer.into_inner())
}

/// Serves one HTTP/2 request for [`PATH`] with `handler`; messages above `max_message` bytes end the stream.
pub async fn serve<H, B>(handler: H, request: Request<B>, max_message: usize) -> Response<Body>
where
    H: StreamingService<DeltaDiscoveryRequest, ResponseStream = Responses, Response = DeltaDiscoveryResponse>
        + Send,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    let mut server = ServerGrpc::new(Counting::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default())
        .max_decoding_message_size(max_message);
    server.streaming(handler, request).await
}
