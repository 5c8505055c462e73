//! What can be set about a proxy.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use mobula_kit::{channel::Dial, listen::Listener, web::Origins};
use mobula_proto::image::v1 as image;
use mobula_serving::admission::Bounds;

use crate::{keys, validate::Limits};

/// Settings of a proxy; every one is a flag and an environment variable.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address of the controller, host:port.
    #[arg(long, env = "MOBULA_CONTROLLER", default_value = "127.0.0.1:7265")]
    pub controller: String,
    /// Name of this proxy, unique among proxies; by default a random one.
    #[arg(long, env = "MOBULA_PROXY_ID")]
    pub proxy_id: Option<String>,
    /// Seconds after which a request is ended (HTTP 408, DEADLINE_EXCEEDED), beside the caller's own deadline, where the
    /// config says nothing: its request_timeout_s (http_options, grpc_options) goes before this. By default none, as in Ray
    /// Serve.
    #[arg(long, env = "MOBULA_REQUEST_TIMEOUT_S", value_parser = positive_seconds)]
    pub request_timeout_s: Option<f64>,
    /// Seconds that a request waits while no replica is there, before it is refused (HTTP 503, UNAVAILABLE).
    #[arg(long, env = "MOBULA_NO_REPLICA_TIMEOUT_S", default_value = "30", value_parser = positive_seconds)]
    pub no_replica_timeout_s: f64,
    /// Requests that may wait in this proxy for one deployment, whatever the deployment allows.
    #[arg(long, env = "MOBULA_MAX_QUEUED_REQUESTS", default_value_t = 10_000)]
    pub max_queued_requests: usize,
    /// Bytes of prompts and pictures that may wait in this proxy for one deployment.
    #[arg(long, env = "MOBULA_MAX_QUEUED_BYTES", default_value_t = MAX_QUEUED_BYTES)]
    pub max_queued_bytes: u64,
    /// Seconds that a request may wait for a replica to be free, before it is refused (HTTP 503, RESOURCE_EXHAUSTED); one that
    /// would wait longer is refused when it comes.
    #[arg(long, env = "MOBULA_MAX_QUEUED_S", default_value = "3600", value_parser = positive_seconds)]
    pub max_queued_s: f64,
    /// Seconds over which a replica that is new, or comes back after it was left out, gets more and more of its share; 0 gives it
    /// all at once.
    #[arg(long, env = "MOBULA_SLOW_START_S", default_value = "10", value_parser = seconds)]
    pub slow_start_s: f64,
    /// Zone of this proxy: replicas on workers with the same label topology.kubernetes.io/zone come first while they are not
    /// busier than others by more than a request. By default it is not known.
    #[arg(long, env = "MOBULA_ZONE")]
    pub zone: Option<String>,
    /// Machine of this proxy: replicas on workers with the same label mobula.io/node come before others of the zone. By
    /// default the host's name.
    #[arg(long, env = "MOBULA_NODE")]
    pub node: Option<String>,
    /// Refuse requests at once while no replica can be reached, instead of having them wait; a request may say otherwise
    /// (x-mobula-failfast).
    #[arg(long, env = "MOBULA_FAILFAST")]
    pub failfast: bool,
    /// How often a request may run in all when its replicas are lost.
    #[arg(long, env = "MOBULA_MAX_ATTEMPTS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,
    /// Pictures that one request may ask for.
    #[arg(long, env = "MOBULA_MAX_IMAGES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_images: u32,
    /// UTF-8 bytes that a prompt may have.
    #[arg(long, env = "MOBULA_MAX_PROMPT_BYTES", default_value_t = 65_536)]
    pub max_prompt_bytes: usize,
    /// Bytes that a picture or a mask may have that is drawn from; more than the default needs a larger limit in the
    /// preprocess workers too.
    #[arg(long, env = "MOBULA_MAX_IMAGE_BYTES", default_value_t = MAX_IMAGE_BYTES)]
    pub max_image_bytes: usize,
    /// What picture files say of how they were made, where a request does not choose: `full` (everything that draws the
    /// picture again, and that a machine made it), `marker` (only that a machine made it) or `none`.
    #[arg(long, env = "MOBULA_PROVENANCE", value_enum, default_value = "full")]
    pub provenance: Provenance,
    /// Bytes that all requests may hold together for prompts and pictures that are drawn from.
    #[arg(long, env = "MOBULA_MAX_HELD_IMAGE_BYTES", default_value_t = MAX_HELD_IMAGE_BYTES)]
    pub max_held_image_bytes: u64,
    /// Bytes of prompts and their tokens that this proxy keeps, so that a prompt that comes again is not tokenized again; 0
    /// keeps none. What a preprocess replica said is forgotten when it leaves.
    #[arg(long, env = "MOBULA_MAX_KEPT_TOKEN_BYTES", default_value_t = MAX_KEPT_TOKEN_BYTES)]
    pub max_kept_token_bytes: u64,
    /// Bytes of pictures that this proxy keeps for an hour behind links (OpenAI's response_format "url"); 0 gives no links.
    /// The oldest go first.
    #[arg(long, env = "MOBULA_MAX_KEPT_IMAGE_BYTES", default_value_t = MAX_KEPT_IMAGE_BYTES)]
    pub max_kept_image_bytes: u64,
    /// Requests of one stream (ModelStreamInfer of the Open Inference Protocol) that run at a time; more are read from it when
    /// one has ended.
    #[arg(long, env = "MOBULA_MAX_STREAM_REQUESTS", default_value = "32", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_stream_requests: u32,
    /// File with the API keys that open the doors, as `mobula key new` writes them (YAML or JSON); read again when it changes.
    /// Without keys everybody may draw.
    #[arg(long, env = "MOBULA_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,
    /// The same list as text, where no file is; give it by its variable, since flags are seen by every user of the machine.
    #[arg(
        long,
        env = "MOBULA_API_KEYS",
        value_name = "LIST",
        hide_env_values = true,
        conflicts_with = "api_keys_file"
    )]
    pub api_keys: Option<keys::Text>,
    /// Where callers reach this proxy, for links to pictures: scheme, host and the path in front of /v1, if there is one. By
    /// default as each request says (X-Forwarded-Host and X-Forwarded-Proto, Forwarded, Host). Only this proxy has what its
    /// links lead to.
    #[arg(long, env = "MOBULA_PUBLIC_URL", value_parser = web_address)]
    pub public_url: Option<String>,
    /// Whose pages may call this proxy from a browser, over gRPC-Web and HTTP: origins such as `https://pictures.example` with
    /// commas between them, or * for everybody's. By default nobody's but the proxy's own.
    #[arg(long, env = "MOBULA_ALLOWED_ORIGINS", default_value_t)]
    pub allowed_origins: Origins,
    /// How the controller and the workers are dialled.
    #[arg(skip)]
    pub dial: Dial,
}

/// What files say of how they were made; mobula.image.v1.Provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Provenance {
    /// Parameters, and that a machine made it.
    Full,
    /// Only that a machine made it.
    Marker,
    /// Nothing.
    None,
}

impl From<Provenance> for image::Provenance {
    fn from(provenance: Provenance) -> Self {
        match provenance {
            Provenance::Full => Self::Full,
            Provenance::Marker => Self::Marker,
            Provenance::None => Self::None,
        }
    }
}

/// A thousand requests with prompts of the largest size and a picture of 512 x 512 each.
const MAX_QUEUED_BYTES: u64 = 512 << 20;
/// Sixteen million pixels of a photograph's JPEG take less.
const MAX_IMAGE_BYTES: usize = 16 << 20;
/// A fourth of a small proxy's memory of 4 GiB.
const MAX_HELD_IMAGE_BYTES: u64 = 1 << 30;
/// A thousand pictures of 512 x 512.
const MAX_KEPT_IMAGE_BYTES: u64 = 256 << 20;

/// Some sixteen hundred prompts of a window or two.
const MAX_KEPT_TOKEN_BYTES: u64 = 4 << 20;
/// Bytes of a request beside its prompts and files, with room.
const REQUEST_REST: usize = 1 << 20;

/// Ports that were bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// HTTP door.
    pub http: Listener,
    /// gRPC door.
    pub grpc: Listener,
    /// Metrics and probes.
    pub admin: Listener,
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_images: self.max_images,
            max_prompt_bytes: self.max_prompt_bytes,
            max_image_bytes: self.max_image_bytes,
            provenance: self.provenance.into(),
        }
    }

    /// Bytes of the largest request: twice what a file and a prompt may have, and the rest; what is a little larger is
    /// still read, and told by its field.
    pub(crate) fn max_request_bytes(&self) -> usize {
        let file_and_prompt = self.max_image_bytes.saturating_add(self.max_prompt_bytes);
        file_and_prompt.saturating_mul(2).saturating_add(REQUEST_REST)
    }

    /// What bounds the requests that wait for one deployment, whatever the deployment allows.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            requests: self.max_queued_requests,
            bytes: self.max_queued_bytes,
            age: Duration::try_from_secs_f64(self.max_queued_s).unwrap_or(Duration::MAX),
        }
    }

    pub(crate) fn slow_start(&self) -> Duration {
        Duration::try_from_secs_f64(self.slow_start_s).unwrap_or_default()
    }

    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        self.request_timeout_s
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    pub(crate) fn no_replica_timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.no_replica_timeout_s).unwrap_or(Duration::MAX)
    }
}

impl Default for Config {
    /// What the flags default to.
    fn default() -> Self {
        Self {
            controller: "127.0.0.1:7265".to_owned(),
            proxy_id: None,
            request_timeout_s: None,
            no_replica_timeout_s: 30.0,
            max_queued_requests: 10_000,
            max_queued_bytes: MAX_QUEUED_BYTES,
            max_queued_s: 3600.0,
            slow_start_s: 10.0,
            zone: None,
            node: None,
            failfast: false,
            max_attempts: 3,
            max_images: 16,
            max_prompt_bytes: 65_536,
            max_image_bytes: MAX_IMAGE_BYTES,
            provenance: Provenance::Full,
            max_held_image_bytes: MAX_HELD_IMAGE_BYTES,
            max_kept_token_bytes: MAX_KEPT_TOKEN_BYTES,
            max_kept_image_bytes: MAX_KEPT_IMAGE_BYTES,
            max_stream_requests: 32,
            api_keys_file: None,
            api_keys: None,
            public_url: None,
            allowed_origins: Origins::None,
            dial: Dial::default(),
        }
    }
}

/// A year: long enough to mean never, short enough for every clock.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

fn web_address(text: &str) -> Result<String, String> {
    let uri = text.parse::<http::Uri>().map_err(|error| error.to_string())?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.authority().is_some() && uri.query().is_none() => Ok(text.to_owned()),
        Some(_) | None => Err("must be an address as https://pictures.example".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    if text.parse() == Ok(0.0) {
        return Ok(0.0);
    }
    positive_seconds(text)
}

fn positive_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= LONGEST_SECONDS => Ok(seconds),
        Ok(_) | Err(_) => Err(format!(
            "must be a number of seconds above 0 and at most {LONGEST_SECONDS}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn the_defaults_of_the_flags_are_the_defaults_of_the_struct() {
        let parsed = Line::parse_from(["mobula-proxy"]).config;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for (text, is_taken) in [
            ("https://pictures.example/draw", true),
            ("http://10.0.0.1:8000", true),
            ("pictures.example", false),
            ("ftp://pictures.example", false),
            ("https://a/?b", false),
        ] {
            let line = Line::try_parse_from(["mobula-proxy", "--public-url", text]);
            assert_eq!(line.is_ok(), is_taken, "{text}");
        }
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        for text in ["0", "-1", "nan", "inf", "soon", "1e12"] {
            let line = Line::try_parse_from(["mobula-proxy", "--request-timeout-s", text]);
            assert!(line.is_err(), "{text}");
        }
    }
}
