//! `Body`: the body of an answer, handed out in small pieces. HTTP/2 keeps what is handed out until the client takes
//! it; so a client that does not read holds one piece.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::activity::Progress;

/// The most bytes of a piece.
const PIECE: usize = 16 << 10;

/// An answer that ends early: the client sees that the stream was reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Aborted(pub String);

/// The parts of an answer, made one after the other as the client takes them.
pub(super) type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, Aborted>> + Send>>;

/// The content of an answer.
pub(super) enum Content {
    /// All of it.
    Whole(Bytes),
    /// In parts.
    Parts(Parts),
}

/// The body of an answer.
pub(super) struct Body {
    /// The rest of the part at hand.
    part: Bytes,
    parts: Option<Parts>,
    progress: Progress,
    /// One of the requests that may go on at a time.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body {
    pub(super) fn new(content: Content, progress: Progress, permit: Option<OwnedSemaphorePermit>) -> Self {
        let (part, parts) = match content {
            Content::Whole(bytes) => (bytes, None),
            Content::Parts(parts) => (Bytes::new(), Some(parts)),
        };
        Self { part, parts, progress, _permit: permit }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        self.progress.taken();
        while self.part.is_empty() {
            let Some(parts) = &mut self.parts else { return Poll::Ready(None) };
            match ready!(parts.as_mut().poll_next(cx)) {
                Some(Ok(part)) => self.part = part,
                Some(Err(aborted)) => return Poll::Ready(Some(Err(aborted))),
                None => return Poll::Ready(None),
            }
        }
        let piece = self.part.len().min(PIECE);
        let piece = self.part.split_to(piece);
        self.progress.handed_out(Instant::now());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.part.is_empty() && self.parts.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.parts {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.part.len() as u64),
        }
    }
}
