//! A server that answers at once: what a load generator can reach at best, and a target whose capacity is known. It speaks
//! `ImageService.Generate` and `GET /imagine` and draws nothing: every picture of one size is the same.

mod answer;
mod grpc;
mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use answer::{Behaviour, picture};

use crate::Error;

/// Connections that wait for a thread to take them.
const BACKLOG: usize = 4096;
/// After a connection could not be taken (no more files), the next is not tried at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A null server that runs until it is dropped or stopped.
#[derive(Debug)]
pub struct Server {
    /// Where it speaks gRPC.
    pub grpc: SocketAddr,
    /// Where it speaks HTTP.
    pub http: SocketAddr,
    stop: CancellationToken,
    threads: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Door {
    Grpc,
    Http,
}

impl Server {
    /// Listens at these addresses and serves on so many threads of its own.
    ///
    /// # Errors
    /// When it cannot listen or start a thread.
    pub async fn start(grpc: &str, http: &str, threads: usize, behaviour: Behaviour) -> Result<Self, Error> {
        let failed = |what: String| move |source| Error::System { what, source };
        let listen = async |address: &str| {
            let listener = TcpListener::bind(address).await?;
            Ok((listener.local_addr()?, listener.into_std()?))
        };
        let (grpc, grpc_listener) = listen(grpc).await.map_err(failed(format!("listen at {grpc}")))?;
        let (http, http_listener) = listen(http).await.map_err(failed(format!("listen at {http}")))?;
        let stop = CancellationToken::new();
        let shared = Arc::new(answer::Shared::new(behaviour));
        let mut handles = Vec::new();
        let mut queues = Vec::new();
        for index in 0..threads.max(1) {
            let (queue, connections) = mpsc::channel(BACKLOG);
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            handles.push(spawn(index, move || serve(shared, connections, stop))?);
            queues.push(queue);
        }
        let stopped = stop.clone();
        handles.push(spawn(threads, move || async move {
            let (Ok(grpc), Ok(http)) = (
                TcpListener::from_std(grpc_listener),
                TcpListener::from_std(http_listener),
            ) else {
                return;
            };
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = accept(&grpc, Door::Grpc, &queues) => {}
                () = accept(&http, Door::Http, &queues) => {}
            }
        })?);
        Ok(Self {
            grpc,
            http,
            stop,
            threads: handles,
        })
    }

    /// Ends it and waits for its threads.
    pub fn stop(mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn spawn<F>(
    index: usize,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Error>
where
    F: Future<Output = ()>,
{
    let failed = |source| Error::System {
        what: "start a thread".into(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    std::thread::Builder::new()
        .name(format!("null-{index}"))
        .spawn(move || runtime.block_on(work()))
        .map_err(failed)
}

/// Hands connections out to the threads in turn.
async fn accept(listener: &TcpListener, door: Door, queues: &[mpsc::Sender<(Door, std::net::TcpStream)>]) {
    for queue in queues.iter().cycle() {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        };
        let _ = stream.set_nodelay(true);
        if let Ok(stream) = stream.into_std() {
            // A thread that has more to take than its queue holds loses this one.
            let _ = queue.try_send((door, stream));
        }
    }
}

async fn serve(
    shared: Arc<answer::Shared>,
    mut connections: mpsc::Receiver<(Door, std::net::TcpStream)>,
    stop: CancellationToken,
) {
    loop {
        let (door, stream) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = connections.recv() => match next {
                Some(next) => next,
                None => return,
            },
        };
        let Ok(stream) = TcpStream::from_std(stream) else {
            continue;
        };
        let shared = Arc::clone(&shared);
        // They end with their peer, and with this thread's runtime.
        match door {
            Door::Grpc => tokio::spawn(grpc::serve(shared, stream)),
            Door::Http => tokio::spawn(http::serve(shared, stream)),
        };
    }
}
