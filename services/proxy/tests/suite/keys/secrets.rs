//! What no log line may hold, at any level: keys, what they are known by, and what is shown beside them.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use super::{ask, config, draw, line, openai, with};
use crate::support::{Mesh, Worker, call, prompt};

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

#[tokio::test]
async fn no_log_at_any_level_holds_a_key_or_what_it_is_known_by_and_at_info_no_prompt() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(log.clone())
        .with_ansi(false);
    // One process per test: nobody else's.
    subscriber.init();
    let (good, wrong, bearer) = ("mob_goodgoodgood", "mob_wrongwrong", "mob_bearerbearer");
    let list = line("acme", good, ", requests_per_second: 0.001, burst: 3");
    let digest = list.split("sha256: ").nth(1).unwrap()[..64].to_owned();
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(list), &[&worker], 4).await;
    let words = "averyprivateprompt";
    let private = || prompt(|r| r.prompt = words.into());
    draw(&mesh, with(good, private())).await.unwrap();
    for key in [wrong, good] {
        let _ = draw(&mesh, with(key, prompt(|r| r.steps = Some(1_000_000)))).await;
        let _ = ask(&mesh, key, &format!("/imagine?prompt={words}")).await;
        let _ = openai(&mesh, Some(key), &json!({ "prompt": words })).await;
    }
    let both = format!(
        "GET /imagine?prompt={words} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\nx-api-key: {good}\r\n\
         authorization: Bearer {bearer}\r\ncookie: session={bearer}\r\n\r\n"
    );
    let _ = call(mesh.http, both).await;
    let log = log.text();
    assert!(
        log.contains("TRACE") && log.contains("a request was served"),
        "it was logged"
    );
    for secret in [good, wrong, bearer, digest.as_str()] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
    let told = |line: &&str| {
        let is_quiet = [" TRACE ", " DEBUG "].iter().any(|level| line.contains(level));
        line.contains(words) && !is_quiet
    };
    assert_eq!(log.lines().find(told), None);
}
