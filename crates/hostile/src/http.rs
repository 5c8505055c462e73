//! HTTP/1.1 as a decent client speaks it.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::soon;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The status code.
    pub status: u16,
    /// Headers as they came, their names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Answered {
    /// A header; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The text of a body that came in chunks.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    pub fn unchunked(&self) -> String {
        assert_eq!(self.header("transfer-encoding"), "chunked");
        let (mut whole, mut rest) = (String::new(), self.text());
        loop {
            let (length, chunk) = rest.split_once("\r\n").unwrap();
            let length = usize::from_str_radix(length, 16).unwrap();
            if length == 0 {
                return whole;
            }
            whole.push_str(&chunk[..length]);
            rest = chunk[length..].strip_prefix("\r\n").unwrap();
        }
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Gets a path.
///
/// # Panics
/// As [`call`].
pub async fn get(address: SocketAddr, path: &str) -> Answered {
    call(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\n\r\n"),
    )
    .await
}

/// Sends the bytes of a request, which must ask for the end of the connection behind it.
///
/// # Panics
/// When no answer comes soon. A connection that ends while more is sent than is read has an answer all the same.
pub async fn call(address: SocketAddr, request: impl AsRef<[u8]>) -> Answered {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let reading = async {
        let mut piece = vec![0; 16 << 10];
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            answer.extend_from_slice(&piece[..length]);
        }
    };
    let writing = async {
        let _ = write.write_all(request.as_ref()).await;
        std::future::pending::<()>().await;
    };
    let answered = async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    soon("an answer", answered).await;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answered {
        status,
        headers,
        body: answer[end + 4..].to_vec(),
    }
}
