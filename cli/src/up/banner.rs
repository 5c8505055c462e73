//! What a user reads once the mesh draws: where it is and what to type next. Pure.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mobula_kit::tls;

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
    /// How they are spoken to.
    pub(crate) tls: Shown,
    /// Folder of the services' logs; none when they write to the terminal.
    pub(crate) logs: Option<&'a Path>,
}

/// What a person has to type for TLS: flags, each with a space in front. Plain without any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    scheme: &'static str,
    imagine: String,
    control: String,
    curl: String,
    grpcurl: String,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            scheme: "http",
            imagine: String::new(),
            control: String::new(),
            curl: String::new(),
            grpcurl: " -plaintext".to_owned(),
        }
    }
}

impl Shown {
    /// The same, where people have to show the token of this file.
    pub(crate) fn with(mut self, token: Option<&Path>) -> Self {
        if let Some(token) = token {
            self.control
                .push_str(&format!(" --admin-token-file {}", token.display()));
        }
        self
    }

    /// For a mesh with these settings.
    pub(crate) fn of(mesh: &tls::Args, public: &tls::PublicArgs) -> Self {
        let own = &mesh.client;
        let paths = |flags: [&str; 3]| {
            let values = [&own.tls_ca, &own.tls_cert, &own.tls_key];
            // Who is not asked for a certificate need not show one.
            let shown = if mesh.tls_client_ca.is_some() { 3 } else { 1 };
            let given = flags.into_iter().zip(values).take(shown);
            let given = given.filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
            let flags: Vec<_> = given
                .map(|(flag, path)| format!(" {flag} {}", path.display()))
                .collect();
            flags.concat()
        };
        let name = own.tls_server_name.as_ref();
        let name = name.map_or_else(String::new, |name| format!(" --tls-server-name {name}"));
        let mobula = paths(["--tls-ca", "--tls-cert", "--tls-key"]) + &name;
        let plain = Self {
            control: mobula.clone(),
            ..Self::default()
        };
        if public.public_tls_cert.is_some() {
            // Its authority is one that callers know, or are told of by who set it up.
            return Self {
                scheme: "https",
                grpcurl: String::new(),
                ..plain
            };
        }
        if own.tls_cert.is_none() || public.public_plaintext {
            return plain;
        }
        Self {
            scheme: "https",
            imagine: mobula,
            curl: paths(["--cacert", "--cert", "--key"]),
            grpcurl: paths(["-cacert", "-cert", "-key"]),
            ..plain
        }
    }
}

impl Banner<'_> {
    /// Renders it; every line ends with a line feed.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let tls = &self.tls;
        let server = flag("--server", self.grpc, DEFAULT_GRPC) + &tls.imagine;
        let controller = flag("--controller", self.controller, DEFAULT_CONTROLLER) + &tls.control;
        let mut text = format!(
            "{} after {}, serving {} ({})\n\n  HTTP   {}://{}\n  gRPC   {}\n",
            paint.good("Mobula is up"),
            human::duration(self.took),
            self.applications.join(", "),
            self.model,
            tls.scheme,
            self.http,
            self.grpc,
        );
        if let Some(logs) = self.logs {
            text.push_str(&format!("  logs   {}\n", logs.display()));
        }
        text.push_str(&format!(
            "\n{}\n  mobula imagine{server} \"a red circle on a blue background\" -o out.png\n  \
             curl{} -o out.png '{}://{}/imagine?prompt=a+red+circle+on+a+blue+background'\n  \
             grpcurl{} {} list\n  mobula status{controller}\n\n{}\n",
            paint.heading("Try"),
            tls.curl,
            tls.scheme,
            self.http,
            tls.grpcurl,
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
        under(grpc, Shown::default())
    }

    fn under(grpc: &str, tls: Shown) -> String {
        Banner {
            applications: &["default".into()],
            model: "models/demo",
            took: Duration::from_millis(840),
            http: "127.0.0.1:8000".parse().unwrap(),
            grpc: grpc.parse().unwrap(),
            controller: DEFAULT_CONTROLLER.parse().unwrap(),
            tls,
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

    #[test]
    fn commands_carry_what_tls_asks_of_them() {
        let mesh = tls::Args {
            client: tls::ClientArgs {
                tls_ca: Some("/ca.pem".into()),
                tls_cert: Some("/me.pem".into()),
                tls_key: Some("/me.key".into()),
                tls_server_name: None,
            },
            tls_client_ca: Some("/ca.pem".into()),
            ..tls::Args::default()
        };
        let text = under(DEFAULT_GRPC, Shown::of(&mesh, &tls::PublicArgs::default()));
        for line in [
            "  HTTP   https://127.0.0.1:8000",
            "  mobula imagine --tls-ca /ca.pem --tls-cert /me.pem --tls-key /me.key \"a red",
            "  curl --cacert /ca.pem --cert /me.pem --key /me.key -o out.png 'https://127.0.0.1:8000/imagine",
            "  grpcurl -cacert /ca.pem -cert /me.pem -key /me.key 127.0.0.1:9000 list",
            "  mobula status --tls-ca /ca.pem --tls-cert /me.pem --tls-key /me.key\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let front = tls::PublicArgs {
            public_plaintext: true,
            ..tls::PublicArgs::default()
        };
        let text = under(DEFAULT_GRPC, Shown::of(&mesh, &front));
        assert!(
            text.contains("  mobula imagine \"a red") && text.contains("grpcurl -plaintext"),
            "{text}"
        );
        assert!(text.contains("  mobula status --tls-ca"), "{text}");
        let text = under(
            DEFAULT_GRPC,
            Shown::default().with(Some(Path::new("/state/admin-token"))),
        );
        let line = "  mobula status --admin-token-file /state/admin-token\n";
        assert!(text.contains(line), "{text}");
    }
}
