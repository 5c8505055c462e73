//! Which paths are the protocol's. Pure.

use http::Method;

use super::super::read::decode;
use crate::table::Table;

/// Below which all of them are.
const ROOT: &str = "/v2";

/// What is asked of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Which tensors it has.
    Metadata,
    /// Whether it takes requests.
    Ready,
    /// Its configuration.
    Config,
    /// What it has done.
    Stats,
    /// An answer.
    Infer,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Who this is.
    Server,
    /// Whether it runs.
    Live,
    /// Whether it takes requests.
    Ready,
    /// What all models have done.
    AllStats,
    /// The models that there are.
    Index,
    /// One model by name and version, which may be empty.
    Model(String, String, Of),
    /// Loads a model.
    Load(String),
    /// Unloads a model.
    Unload,
    /// The regions of memory that are shared.
    Regions,
    /// Shares memory.
    Register,
    /// Shares memory no more.
    Unregister,
    /// What is traced.
    Trace,
    /// What is logged.
    Log,
    /// Nothing that the protocol has.
    Unknown,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(ROOT)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        Some(match parts[..] {
            [] => Self::Server,
            ["health", "live"] => Self::Live,
            ["health", "ready"] => Self::Ready,
            ["models", "stats"] => Self::AllStats,
            ["repository", "index"] => Self::Index,
            ["repository", "models", ref name @ .., "load"] if !name.is_empty() => Self::Load(join(name)),
            ["repository", "models", ref name @ .., "unload"] if !name.is_empty() => Self::Unload,
            ["systemsharedmemory" | "cudasharedmemory", .., "status"] => Self::Regions,
            ["systemsharedmemory" | "cudasharedmemory", .., "register"] => Self::Register,
            ["systemsharedmemory" | "cudasharedmemory", .., "unregister"] => Self::Unregister,
            ["trace", "setting"] | ["models", _, .., "trace", "setting"] => Self::Trace,
            ["logging"] => Self::Log,
            ["models", ref rest @ ..] if !rest.is_empty() => Self::model(rest),
            _ => Self::Unknown,
        })
    }

    /// A model's name may have slashes, which clients leave as they are.
    fn model(parts: &[&str]) -> Self {
        let (parts, of) = match parts {
            [name @ .., last] if !name.is_empty() => match *last {
                "ready" => (name, Of::Ready),
                "config" => (name, Of::Config),
                "stats" => (name, Of::Stats),
                "infer" => (name, Of::Infer),
                _ => (parts, Of::Metadata),
            },
            _ => (parts, Of::Metadata),
        };
        match parts {
            [name @ .., "versions", version] if !name.is_empty() => {
                Self::Model(join(name), join(&[version]), of)
            }
            name => Self::Model(join(name), String::new(), of),
        }
    }

    /// The method that it has.
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Model(_, _, Of::Infer)
            | Self::Index
            | Self::Load(_)
            | Self::Unload
            | Self::Register
            | Self::Unregister => Method::POST,
            Self::Server
            | Self::Live
            | Self::Ready
            | Self::AllStats
            | Self::Model(_, _, Of::Metadata | Of::Ready | Of::Config | Of::Stats)
            | Self::Regions
            | Self::Trace
            | Self::Log
            | Self::Unknown => Method::GET,
        }
    }
}

fn join(parts: &[&str]) -> String {
    let name = parts.join("/").replace('+', "%2B");
    String::from_utf8_lossy(&decode(&name)).into_owned()
}

/// A path of the protocol.
#[derive(Debug)]
pub(in crate::http) struct Ask {
    pub(super) endpoint: Endpoint,
}

impl Ask {
    /// Reads a path; `None` when it is another's. Applications' own prefixes go first, but for the one at the root.
    pub(in crate::http) fn of(table: &Table, path: &str) -> Option<Self> {
        let endpoint = Endpoint::of(path)?;
        let is_taken = table
            .by_path(path)
            .is_some_and(|(application, _)| application.route_prefix != "/");
        (!is_taken).then_some(Self { endpoint })
    }

    /// True for what is answered without a route table.
    pub(in crate::http) fn is_probe(path: &str) -> bool {
        matches!(
            Endpoint::of(path),
            Some(Endpoint::Live | Endpoint::Ready | Endpoint::Model(_, _, Of::Ready))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, version: &str, of: Of) -> Option<Endpoint> {
        Some(Endpoint::Model(name.into(), version.into(), of))
    }

    #[test]
    fn paths_are_read() {
        for (path, endpoint) in [
            ("/v2", Some(Endpoint::Server)),
            ("/v2/", Some(Endpoint::Server)),
            ("/v2/health/live", Some(Endpoint::Live)),
            ("/v2/health/ready", Some(Endpoint::Ready)),
            ("/v2/models/stats", Some(Endpoint::AllStats)),
            ("/v2/models/demo", model("demo", "", Of::Metadata)),
            ("/v2/models/demo/versions/1", model("demo", "1", Of::Metadata)),
            ("/v2/models/demo/versions/1/infer", model("demo", "1", Of::Infer)),
            ("/v2/models/demo%3Ax/ready", model("demo:x", "", Of::Ready)),
            ("/v2/models/a+b/config", model("a+b", "", Of::Config)),
            ("/v2/models/team/demo/stats", model("team/demo", "", Of::Stats)),
            ("/v2/models/infer", model("infer", "", Of::Metadata)),
            ("/v2/models/infer/infer", model("infer", "", Of::Infer)),
            ("/v2/repository/index", Some(Endpoint::Index)),
            (
                "/v2/repository/models/demo/load",
                Some(Endpoint::Load("demo".into())),
            ),
            ("/v2/repository/models/demo/unload", Some(Endpoint::Unload)),
            ("/v2/systemsharedmemory/status", Some(Endpoint::Regions)),
            ("/v2/cudasharedmemory/region/x/register", Some(Endpoint::Register)),
            ("/v2/systemsharedmemory/unregister", Some(Endpoint::Unregister)),
            ("/v2/trace/setting", Some(Endpoint::Trace)),
            ("/v2/models/demo/trace/setting", Some(Endpoint::Trace)),
            ("/v2/logging", Some(Endpoint::Log)),
            ("/v2/else", Some(Endpoint::Unknown)),
            ("/v2/models", Some(Endpoint::Unknown)),
            ("/v2x", None),
            ("/v1/models", None),
            ("/imagine", None),
        ] {
            assert_eq!(Endpoint::of(path), endpoint, "{path}");
        }
    }
}
