//! A gRPC client that does just enough and costs little: blocking, one HTTP/2 connection, one call at a time.
//!
//! It writes the frames that real clients write, heads from the dynamic table included, and reads what it has to: it counts
//! an answer's bytes and leaves its head packed. An answer without a message, which is how errors look, is an error.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long a server may stay silent before a benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Larger than any answer here, so that the server never waits for a window of one stream.
const STREAM_WINDOW: u32 = 1 << 24;
/// What the client gives back of the connection's window at a time.
const WINDOW_STEP: u32 = 1 << 20;
/// The length of a frame's head.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// A message of `bytes` as it travels: not compressed, its length in front.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A connection that makes calls of one method.
pub struct Connection {
    stream: TcpStream,
    /// The head of the first call, which fills the server's table.
    head: Option<Vec<u8>>,
    next_stream: u32,
    max_frame: usize,
    /// What may still be sent on the connection, and on each new stream.
    window: i64,
    stream_window: i64,
    /// What was read since the window was last given back.
    unreturned: u32,
    written: Vec<u8>,
    buffer: Vec<u8>,
    filled: usize,
    /// Answers' bytes, where they are wanted.
    kept: Option<Vec<u8>>,
}

impl Connection {
    /// Connects, to call `path`.
    ///
    /// # Errors
    /// When nobody listens there, or does not speak HTTP/2.
    pub fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Connection {
            stream,
            head: Some(first_head(path, &address.to_string())),
            next_stream: 1,
            max_frame: 1 << 14,
            window: 65_535,
            stream_window: 65_535,
            unreturned: 0,
            written: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            buffer: vec![0; 2 << 20],
            filled: 0,
            kept: None,
        };
        let mut settings = Vec::new();
        for (name, value) in [(INITIAL_WINDOW_SIZE, STREAM_WINDOW), (MAX_FRAME_SIZE, 1 << 20)] {
            settings.extend(name.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.frame(WINDOW_UPDATE, 0, 0, &STREAM_WINDOW.to_be_bytes());
        connection.flush()?;
        // The server's own settings come first, with its windows.
        let mut answer = Answer::default();
        while connection.max_frame == 1 << 14 && connection.stream_window == 65_535 {
            connection.read_frame(0, &mut answer)?;
        }
        Ok(connection)
    }

    /// Makes a call with a message that [`framed`] has made; the bytes of the answer's message, prefix included.
    ///
    /// # Errors
    /// When the connection breaks, or the answer has no message.
    pub fn call(&mut self, message: &[u8]) -> Result<usize> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let head = self.head.take().unwrap_or_else(|| LATER_HEAD.to_vec());
        self.frame(HEADERS, END_HEADERS, stream, &head);
        self.send(stream, message)?;
        let mut answer = Answer::default();
        while !answer.ended {
            self.read_frame(stream, &mut answer)?;
        }
        ensure!(answer.bytes > 0, "the call failed; its head and trailers: {:?}", answer.heads);
        Ok(answer.bytes)
    }

    /// As [`Connection::call`]; the answer's message, prefix included.
    ///
    /// # Errors
    /// As there.
    pub fn answer(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        self.kept = Some(Vec::new());
        self.call(message)?;
        Ok(self.kept.take().unwrap_or_default())
    }

    fn send(&mut self, stream: u32, message: &[u8]) -> Result<()> {
        let mut left = message;
        let mut answer = Answer::default();
        let mut stream_window = self.stream_window;
        loop {
            let room = usize::try_from(self.window.min(stream_window)).unwrap_or(0);
            let size = left.len().min(self.max_frame).min(room);
            let (part, rest) = left.split_at(size);
            if size > 0 {
                let flags = if rest.is_empty() { END_STREAM } else { 0 };
                self.head_of_frame(size, DATA, flags, stream);
                if size <= 1 << 14 {
                    self.written.extend_from_slice(part);
                    self.flush()?;
                } else {
                    self.flush()?;
                    self.stream.write_all(part)?;
                }
                (self.window, stream_window) = (self.window - size as i64, stream_window - size as i64);
            }
            if rest.is_empty() {
                return Ok(());
            }
            left = rest;
            while self.window.min(stream_window) <= 0 {
                stream_window += self.read_frame(stream, &mut answer)?;
            }
        }
    }

    fn head_of_frame(&mut self, length: usize, kind: u8, flags: u8, stream: u32) {
        self.written.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
        self.written.extend_from_slice(&[kind, flags]);
        self.written.extend_from_slice(&stream.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.head_of_frame(payload.len(), kind, flags, stream);
        self.written.extend_from_slice(payload);
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.written).context("the call cannot be sent")?;
        self.written.clear();
        Ok(())
    }

    /// Reads one frame; what it adds to the window of `stream`.
    fn read_frame(&mut self, stream: u32, answer: &mut Answer) -> Result<i64> {
        self.fill(HEAD)?;
        let [a, b, c, kind, flags, id @ ..] = *self.buffer.first_chunk::<HEAD>().context("a frame's head is there")?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let id = u32::from_be_bytes(id);
        self.fill(HEAD + length)?;
        let mut grown = 0;
        let payload = &self.buffer[HEAD..HEAD + length];
        match kind {
            DATA if id == stream => {
                answer.bytes += length;
                self.kept.iter_mut().for_each(|kept| kept.extend_from_slice(payload));
            }
            HEADERS if id == stream => answer.heads.push(length),
            RST_STREAM | GOAWAY => anyhow::bail!("the server ended the call: {payload:?}"),
            WINDOW_UPDATE => {
                let step = i64::from(u32::from_be_bytes(payload.try_into().context("4 bytes")?));
                if id == 0 { self.window += step } else { grown = step }
            }
            SETTINGS if flags & ACK == 0 => {
                let settings = payload.to_vec();
                self.accept(&settings);
            }
            PING if flags & ACK == 0 => {
                let payload = payload.to_vec();
                self.frame(PING, ACK, 0, &payload);
            }
            _ => {}
        }
        answer.ended |= id == stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        self.unreturned += if kind == DATA { length as u32 } else { 0 };
        if self.unreturned >= WINDOW_STEP {
            let step = std::mem::take(&mut self.unreturned).to_be_bytes();
            self.frame(WINDOW_UPDATE, 0, 0, &step);
        }
        self.buffer.copy_within(HEAD + length..self.filled, 0);
        self.filled -= HEAD + length;
        Ok(grown)
    }

    /// Takes over the server's settings.
    fn accept(&mut self, settings: &[u8]) {
        for [name @ .., a, b, c, d] in settings.as_chunks::<6>().0 {
            let value = u32::from_be_bytes([*a, *b, *c, *d]);
            match u16::from_be_bytes(*name) {
                INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
                MAX_FRAME_SIZE => self.max_frame = value as usize,
                _ => {}
            }
        }
        self.frame(SETTINGS, ACK, 0, &[]);
    }

    /// Reads until so many bytes are there.
    fn fill(&mut self, count: usize) -> Result<()> {
        if self.buffer.len() < count {
            self.buffer.resize(count, 0);
        }
        while self.filled < count {
            let read = self.stream.read(&mut self.buffer[self.filled..]).context("no answer")?;
            ensure!(read > 0, "the server closed the connection");
            self.filled += read;
        }
        Ok(())
    }
}

/// What is known of an answer.
#[derive(Default)]
struct Answer {
    bytes: usize,
    heads: Vec<usize>,
    ended: bool,
}

/// `POST` of `http`, and four fields that the server is to remember.
fn first_head(path: &str, authority: &str) -> Vec<u8> {
    let mut head = vec![0x83, 0x86];
    // Literals with incremental indexing; names 4 (:path), 1 (:authority), 31 (content-type) are in the static table.
    let fields = [(4, "", path), (1, "", authority), (0, "te", "trailers"), (31, "", "application/grpc")];
    for (name, own_name, value) in fields {
        head.push(0x40 | name);
        for text in [own_name, value].into_iter().filter(|text| !text.is_empty()) {
            // Lengths below 127 take one byte.
            head.push(text.len() as u8);
            head.extend_from_slice(text.as_bytes());
        }
    }
    head
}

/// The same fields by their numbers.
const LATER_HEAD: [u8; 6] = [0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
