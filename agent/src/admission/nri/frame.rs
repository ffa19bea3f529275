//! `Message`, and its encoding on the runtime's socket. Pure.
//!
//! One socket carries two channels: the runtime asks on one of them, the plugin on the other. A frame
//! (`nri/pkg/net/multiplex`) is a channel's number, a length, and that many bytes of the channel; frames may end
//! anywhere in a message. A channel's bytes are ttrpc messages: length, stream, kind, flags, payload. A stream is one
//! request and its response.

use prost::bytes::{Buf as _, Bytes, BytesMut};

/// One of the two channels of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The runtime asks the plugin.
    Plugin = 1,
    /// The plugin asks the runtime.
    Runtime = 2,
}

/// The side of a stream that a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request = 1,
    Response = 2,
}

/// A ttrpc message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub channel: Channel,
    pub kind: Kind,
    pub stream: u32,
    pub payload: Bytes,
}

/// Bytes that are no messages. Nothing that follows them on the socket can be trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame that is longer than any message.
    #[error("a frame of {0} bytes")]
    FrameLength(u32),
    /// A message that is longer than ttrpc allows.
    #[error("a message of {0} bytes")]
    MessageLength(u32),
    /// A message that is neither request nor response.
    #[error("a message of kind {0}")]
    Kind(u8),
}

const FRAME_HEADER: usize = 8;
const MESSAGE_HEADER: usize = 10;
/// ttrpc's limit (`messageLengthMax`).
const MAX_MESSAGE: u32 = 4 << 20;
/// The runtime reads into a buffer of this many bytes, and fails at a longer frame.
const MAX_SENT_FRAME: usize = 4096;

impl Message {
    /// Returns a message with this content.
    pub fn new(channel: Channel, kind: Kind, stream: u32, content: &impl prost::Message) -> Self {
        Self { channel, kind, stream, payload: content.encode_to_vec().into() }
    }

    /// Returns the message's bytes on the socket.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(MESSAGE_HEADER + self.payload.len());
        message.extend((self.payload.len() as u32).to_be_bytes());
        message.extend(self.stream.to_be_bytes());
        message.extend([self.kind as u8, 0]);
        message.extend_from_slice(&self.payload);
        let mut frames = Vec::with_capacity(FRAME_HEADER + message.len());
        for part in message.chunks(MAX_SENT_FRAME) {
            frames.extend((self.channel as u32).to_be_bytes());
            frames.extend((part.len() as u32).to_be_bytes());
            frames.extend(part);
        }
        frames
    }
}

/// Decodes messages. Holds the bytes that were read and are not a whole message yet.
#[derive(Debug, Default)]
pub struct Decoder {
    socket: BytesMut,
    plugin: BytesMut,
    runtime: BytesMut,
}

impl Decoder {
    /// Returns the buffer for the next bytes from the socket.
    pub const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.socket
    }

    /// Returns the next message, once all of its bytes are there.
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        loop {
            for (channel, bytes) in [(Channel::Plugin, &mut self.plugin), (Channel::Runtime, &mut self.runtime)] {
                if let Some(message) = message(channel, bytes)? {
                    return Ok(Some(message));
                }
            }
            if !self.frame()? {
                return Ok(None);
            }
        }
    }

    /// Moves the next whole frame to its channel, and drops one of an unknown channel. Returns whether there was a
    /// frame.
    fn frame(&mut self) -> Result<bool, FrameError> {
        let Some(([channel, length], _)) = words(&self.socket) else { return Ok(false) };
        if length > MAX_MESSAGE + MESSAGE_HEADER as u32 {
            return Err(FrameError::FrameLength(length));
        }
        let whole = FRAME_HEADER + length as usize;
        if self.socket.len() < whole {
            return Ok(false);
        }
        let mut frame = self.socket.split_to(whole);
        frame.advance(FRAME_HEADER);
        match channel {
            1 => self.plugin.unsplit(frame),
            2 => self.runtime.unsplit(frame),
            _ => {}
        }
        Ok(true)
    }
}

/// Takes the next whole message off a channel's bytes.
fn message(channel: Channel, bytes: &mut BytesMut) -> Result<Option<Message>, FrameError> {
    let Some(([length, stream], [kind, _flags, ..])) = words(bytes) else { return Ok(None) };
    if length > MAX_MESSAGE {
        return Err(FrameError::MessageLength(length));
    }
    let kind = match kind {
        1 => Kind::Request,
        2 => Kind::Response,
        other => return Err(FrameError::Kind(*other)),
    };
    let whole = MESSAGE_HEADER + length as usize;
    if bytes.len() < whole {
        return Ok(None);
    }
    let mut message = bytes.split_to(whole);
    message.advance(MESSAGE_HEADER);
    Ok(Some(Message { channel, kind, stream, payload: message.freeze() }))
}

/// Returns the two big-endian words that both headers begin with, and the bytes after them.
fn words(bytes: &[u8]) -> Option<([u32; 2], &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    let (second, rest) = rest.split_first_chunk()?;
    Some(([u32::from_be_bytes(*first), u32::from_be_bytes(*second)], rest))
}
