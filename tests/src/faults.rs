//! A proxy in front of an S3 server that makes requests fail as a test says: the store on a bad day.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to one answer. Positions count the bytes of the answer, its head included, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An S3 error instead of the answer: status, code, seconds in `Retry-After`.
    Error(u16, &'static str, Option<u64>),
    /// The connection is reset after so many bytes.
    Reset(usize),
    /// The connection is closed after so many bytes.
    Close(usize),
    /// Nothing comes after so many bytes, and the connection stays open.
    Stall(usize),
    /// The answer says that its body has so many bytes less, and so it has.
    Shorten(usize),
    /// A byte of the body, at this position in it, is another one.
    Damage(usize),
}

/// A request as the proxy saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `HEAD` or `GET`.
    pub method: String,
    /// The path without its query: bucket and key.
    pub path: String,
    /// The header `Range`.
    pub range: Option<String>,
    /// How many requests with this method and path came before.
    pub earlier: usize,
}

type Decide = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

#[derive(Clone)]
struct Scene {
    upstream: String,
    decide: Arc<Mutex<Arc<Decide>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Passes requests on, one for each connection, and spoils the answers that it is told to spoil.
pub struct FaultProxy {
    endpoint: String,
    scene: Scene,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// A proxy before `endpoint` (`http://host:port`) that lets `decide` choose what happens to each request.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(endpoint: &str, decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> FaultProxy {
        let upstream = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket"));
        let decide: Arc<Decide> = Arc::new(decide);
        let scene = Scene { upstream, decide: Arc::new(Mutex::new(decide)), asked: Arc::default() };
        let task = tokio::spawn({
            let scene = scene.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let scene = scene.clone();
                    // How a connection ends is the client's business.
                    tokio::spawn(async move { scene.pass(client).await.ok() });
                }
            }
        });
        FaultProxy { endpoint, scene, task }
    }

    /// What to give to the client instead of the store's own endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Chooses differently from now on.
    pub fn set(&self, decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) {
        *self.scene.decide.lock() = Arc::new(decide);
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.scene.asked.lock().clone()
    }

    /// How many requests there were for paths that end with `key`.
    pub fn count(&self, key: &str) -> usize {
        self.scene.asked.lock().iter().filter(|asked| asked.path.ends_with(key)).count()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scene {
    async fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let request = read_head(&mut client).await?;
        let fault = self.choose(&request);
        if let Some(Fault::Error(status, code, retry_after)) = fault {
            let is_head = request.starts_with("HEAD ");
            client.write_all(s3_error(status, code, retry_after, is_head).as_bytes()).await?;
            return client.shutdown().await;
        }
        let mut server = TcpStream::connect(&self.upstream).await?;
        // Headers that are not signed may be added.
        let request = request.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
        server.write_all(request.as_bytes()).await?;
        let head = read_head(&mut server).await?;
        let mut body = Vec::new();
        server.read_to_end(&mut body).await?;
        spoil(client, head, body, fault).await
    }

    fn choose(&self, request: &str) -> Option<Fault> {
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = path.split('?').next().unwrap_or_default();
        let decide = self.decide.lock().clone();
        let mut all = self.asked.lock();
        let earlier = all.iter().filter(|asked| asked.method == method && asked.path == path).count();
        let asked =
            Asked { method: method.to_owned(), path: path.to_owned(), range: header(request, "range"), earlier };
        all.push(asked.clone());
        drop(all);
        decide(&asked)
    }
}

async fn spoil(mut client: TcpStream, mut head: String, mut body: Vec<u8>, fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Shorten(by)) if !body.is_empty() => {
            let length = body.len();
            body.truncate(length.saturating_sub(by));
            head = head.replacen(&format!("content-length: {length}"), &format!("content-length: {}", body.len()), 1);
        }
        Some(Fault::Damage(at)) if !body.is_empty() => {
            let at = at % body.len();
            body[at] ^= 0x55;
        }
        _ => {}
    }
    let answer = [head.as_bytes(), &body].concat();
    let kept = match fault {
        Some(Fault::Reset(after) | Fault::Close(after) | Fault::Stall(after)) => after.min(answer.len()),
        _ => answer.len(),
    };
    client.write_all(&answer[..kept]).await?;
    match fault {
        Some(Fault::Reset(_)) => {
            // What was written may be lost with the connection, as in life.
            let client = client.into_std()?;
            rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO))?;
            Ok(())
        }
        Some(Fault::Stall(_)) => client.read(&mut [0]).await.map(drop),
        _ => client.shutdown().await,
    }
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

fn s3_error(status: u16, code: &str, retry_after: Option<u64>, is_head: bool) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>told to</Message></Error>");
    let after = retry_after.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    let head = format!(
        "HTTP/1.1 {status} Told To\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n{after}connection: close\r\n\r\n",
        body.len()
    );
    if is_head { head } else { head + &body }
}
