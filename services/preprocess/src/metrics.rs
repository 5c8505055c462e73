//! The service's metrics: names, and handles that are looked up once.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use mobula_proto::preprocess::v1::TokenizedText;

const TEXTS: &str = "mobula_preprocess_texts_total";
const TOKENS: &str = "mobula_preprocess_tokens_total";
const TRUNCATED_TEXTS: &str = "mobula_preprocess_truncated_texts_total";
const TRUNCATED_TOKENS: &str = "mobula_preprocess_truncated_tokens_total";
const TOKENIZE: &str = "mobula_preprocess_tokenize_seconds";
const PICTURES: &str = "mobula_preprocess_pictures_total";
const PICTURE: &str = "mobula_preprocess_picture_seconds";
const WAIT: &str = "mobula_preprocess_pool_wait_seconds";
const QUEUE_IN: &str = "mobula_preprocess_pool_entered_total";
const QUEUE_OUT: &str = "mobula_preprocess_pool_left_total";
const QUEUE: &str = "mobula_preprocess_pool_queue_requests";
const SHED: &str = "mobula_preprocess_pool_refused_total";

/// What is measured.
#[derive(Debug)]
pub(crate) struct Metrics {
    texts: Counter,
    tokens: Counter,
    truncated_texts: Counter,
    truncated_tokens: Counter,
    inline: Histogram,
    pool: Histogram,
    prepared: Counter,
    refused_pictures: Counter,
    picture: Histogram,
    pub(crate) queue: Queue,
}

/// What is measured of the pool's queue.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    entered: Counter,
    done: Counter,
    abandoned: Counter,
    waiting: Gauge,
    refused: Counter,
    wait: Histogram,
}

/// Where a request was tokenized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the async thread.
    Inline,
    /// On a tokenizer thread.
    Pool,
}

impl Metrics {
    /// Describes the metrics and takes the handles; the process's recorder must be installed.
    pub(crate) fn new() -> Self {
        describe_counter!(TEXTS, "Texts that were tokenized.");
        describe_counter!(TOKENS, "Tokens in windows, padding not counted.");
        describe_counter!(
            TRUNCATED_TEXTS,
            "Texts of which something did not fit the window."
        );
        describe_counter!(TRUNCATED_TOKENS, "Tokens that did not fit.");
        describe_histogram!(
            TOKENIZE,
            Unit::Seconds,
            "Computing time of a request's texts, by where they were tokenized."
        );
        describe_counter!(
            PICTURES,
            "Files that were brought to pixels, or refused for what is in them."
        );
        describe_histogram!(PICTURE, Unit::Seconds, "Computing time of a file.");
        describe_histogram!(
            WAIT,
            Unit::Seconds,
            "Time that a request waited for a tokenizer thread."
        );
        describe_counter!(QUEUE_IN, "Requests that were queued for a tokenizer thread.");
        describe_counter!(
            QUEUE_OUT,
            "Requests that left that queue: done, or abandoned by their caller."
        );
        describe_gauge!(QUEUE, "Requests that wait for a tokenizer thread.");
        describe_counter!(SHED, "Requests that were refused because that queue was full.");
        Self {
            texts: counter!(TEXTS),
            tokens: counter!(TOKENS),
            truncated_texts: counter!(TRUNCATED_TEXTS),
            truncated_tokens: counter!(TRUNCATED_TOKENS),
            inline: histogram!(TOKENIZE, "place" => "inline"),
            pool: histogram!(TOKENIZE, "place" => "pool"),
            prepared: counter!(PICTURES, "outcome" => "done"),
            refused_pictures: counter!(PICTURES, "outcome" => "refused"),
            picture: histogram!(PICTURE),
            queue: Queue {
                entered: counter!(QUEUE_IN),
                done: counter!(QUEUE_OUT, "outcome" => "done"),
                abandoned: counter!(QUEUE_OUT, "outcome" => "abandoned"),
                waiting: gauge!(QUEUE),
                refused: counter!(SHED),
                wait: histogram!(WAIT),
            },
        }
    }

    /// Records one request.
    pub(crate) fn tokenized(&self, texts: &[TokenizedText], place: Place, took: Duration) {
        self.texts.increment(texts.len() as u64);
        self.tokens
            .increment(texts.iter().map(|text| u64::from(text.token_count)).sum());
        let truncated = texts.iter().filter(|text| text.truncated_count > 0);
        let (texts, tokens) = truncated.fold((0, 0), |(texts, tokens), text| {
            (texts + 1, tokens + u64::from(text.truncated_count))
        });
        if texts > 0 {
            self.truncated_texts.increment(texts);
            self.truncated_tokens.increment(tokens);
        }
        match place {
            Place::Inline => self.inline.record(took),
            Place::Pool => self.pool.record(took),
        }
    }
}

impl Metrics {
    /// Records one file.
    pub(crate) fn picture(&self, done: bool, took: Duration) {
        if done {
            &self.prepared
        } else {
            &self.refused_pictures
        }
        .increment(1);
        self.picture.record(took);
    }
}

impl Queue {
    pub(crate) fn entered(&self) {
        self.entered.increment(1);
        self.waiting.increment(1.0);
    }

    pub(crate) fn left(&self, waited: Duration, abandoned: bool) {
        if abandoned { &self.abandoned } else { &self.done }.increment(1);
        self.waiting.decrement(1.0);
        self.wait.record(waited);
    }

    pub(crate) fn refused(&self) {
        self.refused.increment(1);
    }
}
