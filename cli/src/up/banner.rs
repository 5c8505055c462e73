//! What a user reads once the mesh draws: where it is and what to type next. Pure.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::human;
use crate::paint::Paint;

/// The default gRPC door; commands that use it need no flag.
pub(crate) const DEFAULT_GRPC: &str = "127.0.0.1:9000";
/// The controller's default door; commands that use it need no flag.
pub(crate) const DEFAULT_CONTROLLER: &str = "127.0.0.1:7265";

/// What the banner tells.
#[derive(Debug)]
pub(crate) struct Banner<'a> {
    /// Applications that draw.
    pub(crate) applications: &'a [String],
    /// What draws in them.
    pub(crate) model: &'a str,
    /// From the command's start.
    pub(crate) took: Duration,
    /// As a client on this machine reaches them.
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) controller: SocketAddr,
    /// Folder of the services' logs; none when they write to the terminal.
    pub(crate) logs: Option<&'a Path>,
}

impl Banner<'_> {
    /// Renders it; every line ends with a line feed.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let server = flag("--server", self.grpc, DEFAULT_GRPC);
        let controller = flag("--controller", self.controller, DEFAULT_CONTROLLER);
        let mut text = format!(
            "{} after {}, serving {} ({})\n\n  HTTP   http://{}\n  gRPC   {}\n",
            paint.good("Mobula is up"),
            human::duration(self.took),
            self.applications.join(", "),
            self.model,
            self.http,
            self.grpc,
        );
        if let Some(logs) = self.logs {
            text.push_str(&format!("  logs   {}\n", logs.display()));
        }
        text.push_str(&format!(
            "\n{}\n  mobula imagine{server} \"a red circle on a blue background\" -o out.png\n  \
             curl -o out.png 'http://{}/imagine?prompt=a+red+circle+on+a+blue+background'\n  \
             grpcurl -plaintext {} list\n  mobula status{controller}\n\n{}\n",
            paint.heading("Try"),
            self.http,
            self.grpc,
            paint.dim("Ctrl-C stops it."),
        ));
        text
    }
}

fn flag(flag: &str, address: SocketAddr, default: &str) -> String {
    if address.to_string() == default {
        String::new()
    } else {
        format!(" {flag} {address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(grpc: &str) -> String {
        Banner {
            applications: &["default".into()],
            model: "models/demo",
            took: Duration::from_millis(840),
            http: "127.0.0.1:8000".parse().unwrap(),
            grpc: grpc.parse().unwrap(),
            controller: DEFAULT_CONTROLLER.parse().unwrap(),
            logs: Some(Path::new("/state/logs")),
        }
        .render(Paint::PLAIN)
    }

    #[test]
    fn the_banner_says_where_to_go_and_what_to_type() {
        assert_eq!(
            banner(DEFAULT_GRPC),
            "\
Mobula is up after 840 ms, serving default (models/demo)

  HTTP   http://127.0.0.1:8000
  gRPC   127.0.0.1:9000
  logs   /state/logs

Try
  mobula imagine \"a red circle on a blue background\" -o out.png
  curl -o out.png 'http://127.0.0.1:8000/imagine?prompt=a+red+circle+on+a+blue+background'
  grpcurl -plaintext 127.0.0.1:9000 list
  mobula status

Ctrl-C stops it.
"
        );
    }

    #[test]
    fn commands_carry_the_address_when_it_is_not_the_default() {
        assert!(banner("127.0.0.1:9999").contains("mobula imagine --server 127.0.0.1:9999 \"a red"));
    }
}
