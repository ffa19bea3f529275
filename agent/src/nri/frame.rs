//! `Message`, and how it is put on the runtime's socket. Pure.
//!
//! One socket carries two connections: on one the runtime asks, on the other the plugin does. A frame
//! (`nri/pkg/net/multiplex`) is the connection's number, the length, and so many bytes; where frames end means nothing. The
//! bytes of a connection are messages (ttrpc): length, stream, kind, flags, payload. A stream is one question and its answer.

use prost::bytes::{Buf as _, Bytes, BytesMut};

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The runtime asks the plugin.
    Plugin = 1,
    /// The plugin asks the runtime.
    Runtime = 2,
}

/// Which end of a stream a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its question.
    Request = 1,
    /// Its answer.
    Response = 2,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub line: Line,
    pub kind: Kind,
    pub stream: u32,
    pub payload: Bytes,
}

/// Bytes that are no messages: after them nothing on this socket can be trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// A frame that is longer than any message.
    #[error("a frame of {0} bytes")]
    Frame(u32),
    /// A message that is longer than ttrpc allows.
    #[error("a message of {0} bytes")]
    Length(u32),
    /// A message that is neither request nor response.
    #[error("a message of kind {0}")]
    Kind(u8),
}

const FRAME_HEADER: usize = 8;
const MESSAGE_HEADER: usize = 10;
const MESSAGE_MOST: u32 = 4 << 20;
/// The runtime's end reads into a buffer of so many bytes, and gives up on a frame that is larger.
const FRAME_MOST: usize = 4096;

impl Message {
    /// A message that says `what`.
    pub fn new(line: Line, kind: Kind, stream: u32, what: &impl prost::Message) -> Self {
        Self { line, kind, stream, payload: what.encode_to_vec().into() }
    }

    /// The bytes for the socket.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(MESSAGE_HEADER + self.payload.len());
        message.extend((self.payload.len() as u32).to_be_bytes());
        message.extend(self.stream.to_be_bytes());
        message.extend([self.kind as u8, 0]);
        message.extend_from_slice(&self.payload);
        let mut frames = Vec::with_capacity(FRAME_HEADER + message.len());
        for part in message.chunks(FRAME_MOST) {
            frames.extend((self.line as u32).to_be_bytes());
            frames.extend((part.len() as u32).to_be_bytes());
            frames.extend(part);
        }
        frames
    }
}

/// What was read from the socket and is not a whole message yet.
#[derive(Debug, Default)]
pub struct Decoder {
    socket: BytesMut,
    plugin: BytesMut,
    runtime: BytesMut,
}

impl Decoder {
    /// Where what is read from the socket is to be put.
    pub const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.socket
    }

    /// The next whole message, if there is one.
    pub fn next(&mut self) -> Result<Option<Message>, Garbage> {
        loop {
            for (line, bytes) in [(Line::Plugin, &mut self.plugin), (Line::Runtime, &mut self.runtime)] {
                if let Some(message) = message(line, bytes)? {
                    return Ok(Some(message));
                }
            }
            if !self.frame()? {
                return Ok(None);
            }
        }
    }

    /// Gives the next whole frame to its connection; tells whether there was one. What is for no connection is for nobody.
    fn frame(&mut self) -> Result<bool, Garbage> {
        let Some(([line, length], _)) = words(&self.socket) else { return Ok(false) };
        if length > MESSAGE_MOST + MESSAGE_HEADER as u32 {
            return Err(Garbage::Frame(length));
        }
        let whole = FRAME_HEADER + length as usize;
        if self.socket.len() < whole {
            return Ok(false);
        }
        let mut frame = self.socket.split_to(whole);
        frame.advance(FRAME_HEADER);
        match line {
            1 => self.plugin.unsplit(frame),
            2 => self.runtime.unsplit(frame),
            _ => {}
        }
        Ok(true)
    }
}

/// Takes the next whole message off a connection's bytes.
fn message(line: Line, bytes: &mut BytesMut) -> Result<Option<Message>, Garbage> {
    let Some(([length, stream], [kind, _flags, ..])) = words(bytes) else { return Ok(None) };
    if length > MESSAGE_MOST {
        return Err(Garbage::Length(length));
    }
    let kind = match kind {
        1 => Kind::Request,
        2 => Kind::Response,
        other => return Err(Garbage::Kind(*other)),
    };
    let whole = MESSAGE_HEADER + length as usize;
    if bytes.len() < whole {
        return Ok(None);
    }
    let mut message = bytes.split_to(whole);
    message.advance(MESSAGE_HEADER);
    Ok(Some(Message { line, kind, stream, payload: message.freeze() }))
}

/// The two big-endian words that both headers begin with, and what follows them.
fn words(bytes: &[u8]) -> Option<([u32; 2], &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    let (second, rest) = rest.split_first_chunk()?;
    Some(([u32::from_be_bytes(*first), u32::from_be_bytes(*second)], rest))
}
