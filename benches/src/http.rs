//! An HTTP/1.1 client that does just enough and costs little: blocking, one connection, answers with a length.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long a server may stay silent before a benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// The end of an answer's head.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// A whole request, ready to be sent again and again.
pub fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// A request without a body.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// A connection that is kept alive.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, in the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    head: &'a str,
    /// Its whole body.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// A header's value; its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, buffer: vec![0; 64 * 1024] })
    }

    /// Sends a request and waits for its whole answer.
    ///
    /// # Errors
    /// When the connection breaks, or the answer does not say its length.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).context("the request cannot be sent")?;
        let mut filled = 0;
        let body = loop {
            filled += self.read(filled)?;
            if let Some(end) = find(&self.buffer[..filled], BLANK_LINE) {
                break end + BLANK_LINE.len();
            }
            if filled == self.buffer.len() {
                bail!("the answer's head is longer than {filled} bytes");
            }
        };
        let length = header(head(&self.buffer[..body])?, "content-length").context("the answer has no length")?;
        let end = body + length.parse::<usize>().context("the answer's length is not a number")?;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.stream.read_exact(&mut self.buffer[filled.min(end)..end]).context("the answer is cut")?;
        let head = head(&self.buffer[..body])?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("there is no status")?;
        Ok(Answer { status, head, body: &self.buffer[body..end] })
    }

    fn read(&mut self, filled: usize) -> Result<usize> {
        let count = self.stream.read(&mut self.buffer[filled..]).context("no answer")?;
        ensure!(count > 0, "the server closed the connection");
        Ok(count)
    }
}

fn head(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).context("the answer's head is not text")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").skip(1);
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn reads_answers_that_arrive_in_pieces_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let request = post("/path", &[("a", "b")], b"body");
        let length = request.len();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            for _ in 0..2 {
                stream.read_exact(&mut vec![0; length]).expect("a whole request");
                for piece in ["HTTP/1.1 200 OK\r\nX-Thing: a\r\ncontent-", "length: 5\r\n\r\nab", "cde"] {
                    stream.write_all(piece.as_bytes()).expect("written");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let mut connection = Connection::open(address).expect("listening");
        for _ in 0..2 {
            let answer = connection.exchange(&request).expect("an answer");
            assert_eq!((answer.status, answer.header("x-thing"), answer.body), (200, Some("a"), b"abcde".as_slice()));
        }
        server.join().expect("no panic");
    }
}
