//! A proxy in front of a store that holds its answers back until it is told to let them through: downloads that are under
//! way for exactly as long as a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::until;

/// Holds back what comes after the first so many bytes of each connection's answers, until it is opened.
pub struct Gate {
    endpoint: String,
    open: watch::Sender<bool>,
    holding: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Gate {
    /// A closed gate before `endpoint` (`http://host:port`).
    ///
    /// # Panics
    /// When no port is free.
    pub async fn closed(endpoint: &str, hold_after: usize) -> Self {
        let upstream = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket"));
        let (open, is_open) = watch::channel(false);
        let holding = Arc::new(AtomicUsize::new(0));
        let counter = holding.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&upstream).await else { continue };
                tokio::spawn(pass(client, server, hold_after, is_open.clone(), counter.clone()));
            }
        });
        Gate { endpoint, open, holding, task }
    }

    /// What to give to the client instead of the store's own endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Waits until an answer is held back.
    pub async fn holds(&self) {
        until("the gate holds a download", async || (self.holding.load(Ordering::SeqCst) > 0).then_some(())).await;
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    hold_after: usize,
    mut is_open: watch::Receiver<bool>,
    holding: Arc<AtomicUsize>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upwards = async move { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let downwards = async move {
        let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            if passed + count > hold_after && !*is_open.borrow() {
                holding.fetch_add(1, Ordering::SeqCst);
                // An error means that the gate is gone, and so is the test.
                let _ = is_open.wait_for(|open| *open).await;
                holding.fetch_sub(1, Ordering::SeqCst);
            }
            to_client.write_all(&buffer[..count]).await?;
            passed += count;
        }
    };
    // Whichever side ends first ends the other; errors are the peers' business.
    let _: std::io::Result<()> = tokio::select! { ended = upwards => ended, ended = downwards => ended };
}
