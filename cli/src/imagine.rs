//! `mobula imagine`: a prompt in, picture files out, over the public streaming API.
//!
//! Refuses to judge the request: sizes, steps and schedulers are checked by the mesh, which names what is wrong. What it
//! checks itself is what the mesh cannot know: where the files go. A user who interrupts it frees the mesh at once.

mod encoding;
mod files;
mod options;
mod progress;
mod report;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mobula_kit::tls::ClientArgs;
use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use mobula_proto::image::v1::{CancelRequest, GenerateRequest};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Status};

use self::encoding::Encoding;
use self::files::Files;
use self::options::{Options, Pictures};
use self::progress::Progress;
use crate::Error;
use crate::interrupt::Interrupts;
use crate::remote::{self, Remote, Who};

/// Largest message taken from the mesh. A 4096 x 4096 RGB picture is 48 MiB before compression.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// How long the mesh is given to hear of a cancellation before the command ends; the closed stream cancels as well.
const CANCEL_WAIT: Duration = Duration::from_millis(500);

/// Between two attempts while the mesh comes up; small beside the time that takes.
const ASK_AGAIN: Duration = Duration::from_millis(25);

const EXAMPLES: &str = "\
Examples:
  mobula imagine \"a red circle on a blue background\"
  mobula imagine \"a large yellow star\" -o star.png --seed 7 --steps 30 --scheduler euler_a
  mobula imagine \"a green square\" --count 4 -o square.png          square-0.png to square-3.png
  mobula imagine \"a white triangle\" -q -o - | display              the picture on standard output
  mobula imagine \"a red star\" -o star.jpg --quality 90              a JPEG; star.webp makes a WebP
  mobula imagine \"a red star\" --previews steps/ --preview-interval 2
  mobula imagine \"a red star\" --init-image sketch.png --strength 0.6
  mobula imagine \"a (red:1.3) star\" --syntax a1111 --scheduler \"DPM++ 2M\" --sigma-schedule karras

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (the mesh stops drawing at once).";

/// Where the mesh reads an API key.
const API_KEY: &str = "x-api-key";

/// An API key, which nothing prints.
#[derive(Clone)]
struct Key(MetadataValue<Ascii>);

impl FromStr for Key {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut key = MetadataValue::try_from(text.trim()).map_err(|_| "must be printable ASCII")?;
        key.set_sensitive(true);
        Ok(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Flags of `mobula imagine`. What is not given takes the model's default.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What the picture shows
    prompt: String,
    /// Where the picture goes; several pictures go to FILE-0.png, FILE-1.png, ...; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "out.png")]
    output: PathBuf,
    /// What the picture should not show
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    negative_prompt: String,
    /// Application to ask; not needed when only one is deployed
    #[arg(
        short,
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    model: String,
    /// Denoising steps
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// How closely the prompt is followed; 1 or less switches guidance off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    guidance_scale: Option<f32>,
    /// Seed of a picture; give it several times for several pictures. Without it the mesh draws one and tells it
    #[arg(long = "seed", value_name = "N")]
    seeds: Vec<u64>,
    /// How many pictures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Pixels, a multiple of 8
    #[arg(long, value_name = "PIXELS")]
    width: Option<u32>,
    /// Pixels, a multiple of 8
    #[arg(long, value_name = "PIXELS")]
    height: Option<u32>,
    /// euler_a, dpmpp_2m_karras and others, or a name of A1111 ("DPM++ 2M Karras") or diffusers; a wrong one is told with all
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    scheduler: String,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    options: Options,
    /// Write small pictures of the state on the way into this folder
    #[arg(long, value_name = "DIR")]
    previews: Option<PathBuf>,
    /// Steps between two previews
    #[arg(long, value_name = "N", requires = "previews", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    preview_interval: u32,
    /// gRPC address of the mesh
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "MOBULA_SERVER",
        default_value = "127.0.0.1:9000"
    )]
    server: String,
    #[command(flatten)]
    tls: ClientArgs,
    /// API key, where the mesh wants one; give it by its variable, since flags are seen by every user of the machine
    #[arg(long, value_name = "KEY", env = "MOBULA_API_KEY", hide_env_values = true)]
    api_key: Option<Key>,
    /// Wait so many seconds for the mesh to come up, where it is not there yet
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// Reads a positive number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be a number of seconds above 0".into())
}

impl Args {
    fn request(&self, pictures: &Pictures) -> GenerateRequest {
        let mut request = GenerateRequest {
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            scheduler: self.scheduler.clone(),
            seeds: self.seeds.clone(),
            image_count: self.count.unwrap_or(0),
            preview_interval: if self.previews.is_some() {
                self.preview_interval
            } else {
                0
            },
            ..GenerateRequest::default()
        };
        self.encoding.fill(&mut request, &self.output);
        self.options.fill(&mut request, pictures);
        request
    }

    /// Pictures that will come.
    fn pictures(&self) -> usize {
        self.count
            .map_or_else(|| self.seeds.len().max(1), |count| count as usize)
    }
}

/// Draws, and writes each picture when it comes.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut interrupts = Interrupts::listen()?;
    let files = Files::plan(&args.output, args.pictures(), args.previews.as_deref())?;
    let given = args.options.read().await?;
    let remote = Remote::new(&args.server, Who::Mesh, &args.tls)?;
    let client = ImageServiceClient::new(remote.channel()?).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut drawing = Drawing {
        client,
        remote,
        files,
        progress: Progress::new(args.quiet, args.output.as_os_str() == "-"),
        given,
        request_id: None,
        key: args.api_key.clone(),
        done: false,
    };
    tokio::select! {
        biased;
        () = interrupts.next() => {
            drawing.progress.clear();
            drawing.cancel().await;
            Err(Error::Interrupted)
        }
        outcome = drawing.run(&args) => {
            drawing.progress.clear();
            outcome
        }
    }
}

/// One request on its way.
struct Drawing {
    client: ImageServiceClient<Channel>,
    remote: Remote,
    files: Files,
    progress: Progress,
    /// The pictures to draw from.
    given: Pictures,
    /// Known from the accepted event on.
    request_id: Option<String>,
    key: Option<Key>,
    done: bool,
}

impl Drawing {
    /// Asks; again and again while the mesh is not there, if the user waits for it.
    async fn run(&mut self, args: &Args) -> Result<(), Error> {
        let wait_until = args.wait.map(|wait| Instant::now() + wait);
        loop {
            let status = match self.attempt(args).await {
                Ok(()) => return Ok(()),
                Err(Failure::Own(error)) => return Err(error),
                Err(Failure::Mesh(status)) => status,
            };
            // Only what was not accepted is asked again: nothing is drawn twice. A mesh that starts may reset a connection that
            // came before its proxy was there.
            let early = (status.code() == Code::Unavailable || remote::is_broken(&status))
                && self.request_id.is_none()
                && wait_until.is_some_and(|until| Instant::now() < until);
            if !early {
                return Err(self.remote.explain(status));
            }
            self.progress.waiting();
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// A message with the user's key.
    fn with_key<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(Key(key)) = &self.key {
            request.metadata_mut().insert(API_KEY, key.clone());
        }
        request
    }

    async fn attempt(&mut self, args: &Args) -> Result<(), Failure> {
        let mut request = self.with_key(args.request(&self.given));
        if let Some(timeout) = args.timeout {
            request.set_timeout(timeout);
        }
        let mut events = self.client.generate(request).await?.into_inner();
        while let Some(message) = events.message().await? {
            if let Some(event) = message.event {
                self.take(event).await?;
            }
        }
        if self.done {
            Ok(())
        } else {
            Err(Error::Cut {
                address: self.remote.address.clone(),
            }
            .into())
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Accepted(accepted) => {
                self.progress.accepted(&accepted);
                self.request_id = Some(accepted.request_id);
            }
            Event::Waiting(waiting) => self.progress.moved(&waiting),
            Event::Started(_) => self.progress.started(),
            Event::Step(step) => self.progress.step(&step),
            Event::Preview(preview) => {
                self.files.preview(&preview).await?;
            }
            Event::Image(image) => {
                let name = self.files.picture(&image).await?;
                self.progress.say(&report::picture(&name, &image))?;
                for note in &image.notes {
                    self.progress.note(&name, note);
                }
            }
            Event::Restarted(restarted) => self.progress.restarted(&restarted),
            Event::Done(done) => {
                self.done = true;
                self.progress.say(&report::done(&done))?;
            }
        }
        Ok(())
    }

    /// Tells the mesh that nobody waits any more.
    async fn cancel(&mut self) {
        if let Some(request_id) = self.request_id.take() {
            // The user leaves either way; an unknown id means that the request just ended.
            let request = self.with_key(CancelRequest { request_id });
            let _ = tokio::time::timeout(CANCEL_WAIT, self.client.cancel(request)).await;
        }
    }
}

/// Why an attempt failed.
enum Failure {
    /// The mesh said so, or was not there to say anything.
    Mesh(Status),
    /// Something on this side.
    Own(Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Mesh(status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        Command::try_parse_from(std::iter::once("imagine").chain(line.iter().copied()))
            .map(|command| command.args)
    }

    #[test]
    fn a_bare_prompt_leaves_every_choice_to_the_model() {
        let request = parse(&["a red circle"]).unwrap().request(&Pictures::default());
        let defaults = GenerateRequest {
            prompt: "a red circle".into(),
            format: mobula_proto::image::v1::ImageFormat::Png.into(),
            ..GenerateRequest::default()
        };
        assert_eq!(request, defaults);
    }

    #[test]
    fn seeds_make_pictures_unless_a_count_is_given() {
        assert_eq!(parse(&["x", "--seed", "1", "--seed", "2"]).unwrap().pictures(), 2);
        assert_eq!(
            parse(&["x", "--seed", "1", "--count", "4"]).unwrap().pictures(),
            4
        );
        assert_eq!(parse(&["x"]).unwrap().pictures(), 1);
    }

    #[test]
    fn previews_are_asked_for_only_with_a_folder_to_put_them_in() {
        assert_eq!(
            parse(&["x"])
                .unwrap()
                .request(&Pictures::default())
                .preview_interval,
            0
        );
        assert_eq!(
            parse(&["x", "--previews", "steps"])
                .unwrap()
                .request(&Pictures::default())
                .preview_interval,
            5
        );
        assert!(parse(&["x", "--preview-interval", "2"]).is_err());
    }

    #[test]
    fn a_timeout_is_a_positive_number_of_seconds() {
        assert_eq!(
            parse(&["x", "--timeout", "0.5"]).unwrap().timeout,
            Some(Duration::from_millis(500))
        );
        for wrong in ["0", "-1", "NaN", "soon", "1e300"] {
            assert!(parse(&["x", &format!("--timeout={wrong}")]).is_err(), "{wrong}");
        }
    }
}
