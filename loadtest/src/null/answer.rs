//! What the null server answers, whatever the door.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::{Done, GenerateResponse, Image};
use tokio::sync::Semaphore;

use crate::client::Frames;

/// Width and height where a request says nothing.
const DEFAULT_SIZE: u32 = 64;
/// Sizes are multiples of this.
const MULTIPLE: u32 = 8;
/// Largest width and height.
const LARGEST: u32 = 2048;

/// How it answers.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// How long each picture takes.
    pub service: Duration,
    /// How many it draws at a time; 0 is no limit. Capacity is slots / service.
    pub slots: usize,
    /// How many may wait for a slot; more are refused with a delay.
    pub queue: usize,
}

impl Default for Behaviour {
    /// At once, without limits.
    fn default() -> Self {
        Self {
            service: Duration::ZERO,
            slots: 0,
            queue: 1000,
        }
    }
}

/// What it has made of a request.
#[derive(Debug)]
pub(super) enum Answer {
    Picture(&'static Encoded),
    /// A picture that nobody expects.
    Odd(Bytes),
    /// Too many wait; the seconds after which to come back.
    Refused(Option<u64>),
    Failed,
    BadSize,
    /// The headers of an answer and then nothing.
    Cut,
    /// Nothing, ever.
    Silent,
}

/// A picture in both forms.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) file: Bytes,
    /// The whole gRPC answer but its trailers.
    pub(super) messages: Bytes,
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    behaviour: Behaviour,
    slots: Semaphore,
    waiting: AtomicUsize,
    odd: AtomicU64,
}

impl Shared {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        Self {
            slots: Semaphore::new(behaviour.slots),
            behaviour,
            waiting: AtomicUsize::new(0),
            odd: AtomicU64::new(0),
        }
    }

    /// Answers this prompt and size; a prompt such as `fault:cut` asks for what a bad server would do.
    pub(super) async fn answer(&self, prompt: &str, size: Option<u32>) -> Answer {
        if let Some(fault) = prompt.strip_prefix("fault:") {
            return self.fault(fault, size);
        }
        let size = size.unwrap_or(DEFAULT_SIZE);
        if size == 0 || !size.is_multiple_of(MULTIPLE) || size > LARGEST {
            return Answer::BadSize;
        }
        if self.behaviour.slots > 0 {
            // Nobody overtakes: a slot that is given back goes to who waits.
            let _slot = match self.slots.try_acquire() {
                Ok(slot) => Ok(slot),
                Err(_) => {
                    let Some(_place) = Place::take(&self.waiting, self.behaviour.queue) else {
                        return Answer::Refused(Some(1));
                    };
                    self.slots.acquire().await
                }
            };
            tokio::time::sleep(self.behaviour.service).await;
        } else if !self.behaviour.service.is_zero() {
            tokio::time::sleep(self.behaviour.service).await;
        }
        Answer::Picture(encoded(size))
    }

    fn fault(&self, fault: &str, size: Option<u32>) -> Answer {
        let size = size.unwrap_or(DEFAULT_SIZE);
        match fault {
            "refuse" => Answer::Refused(Some(1)),
            "bare" => Answer::Refused(None),
            "cut" => Answer::Cut,
            "silent" => Answer::Silent,
            "text" => Answer::Odd(Bytes::from_static(b"no picture")),
            "size" => Answer::Odd(picture(size + MULTIPLE, 0)),
            "differ" => Answer::Odd(picture(size, self.odd.fetch_add(1, Ordering::Relaxed) as u8)),
            "half" => {
                let file = picture(size, 0);
                Answer::Odd(file.slice(..file.len() / 2))
            }
            _ => Answer::Failed,
        }
    }
}

/// One place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= most {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The picture of this size, made when it is first asked for.
fn encoded(size: u32) -> &'static Encoded {
    static ALL: [OnceLock<Encoded>; (LARGEST / MULTIPLE + 1) as usize] =
        [const { OnceLock::new() }; (LARGEST / MULTIPLE + 1) as usize];
    ALL[(size / MULTIPLE) as usize].get_or_init(|| {
        let file = picture(size, 0x80);
        Encoded {
            messages: messages(&file),
            file,
        }
    })
}

/// The messages of an answer with this file.
pub(super) fn messages(file: &Bytes) -> Bytes {
    let image = Image {
        data: file.clone(),
        ..Image::default()
    };
    let mut bytes = BytesMut::new();
    for event in [Event::Image(image), Event::Done(Done::default())] {
        Frames::write(&GenerateResponse { event: Some(event) }, &mut bytes);
    }
    bytes.freeze()
}

/// A PNG of one grey, so wide and high.
///
/// # Panics
/// When `size` is 0.
#[must_use]
pub fn picture(size: u32, grey: u8) -> Bytes {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size, size);
    encoder.set_color(png::ColorType::Rgb);
    let pixels = vec![grey; size as usize * size as usize * 3];
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels))
        .expect("a grey square of a positive size can be written to memory");
    file.into()
}
