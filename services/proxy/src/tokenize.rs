//! Prompts to tokens, on any preprocess replica of the model that they are for; once for each prompt, while that replica is
//! there.

mod kept;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use mobula_proto::{
    common::v1::Prompt,
    control::v1::ModelInfo,
    inference::v1::GenerateRequest,
    preprocess::v1::{TokenizeRequest, TokenizedText},
};
use prost::Message as _;
use tracing::{Instrument, debug_span};

use self::kept::Asked;
pub(crate) use self::kept::Kept;
use crate::{
    Error, aside,
    generate::{Job, Served},
    pool::Want,
    problem::{Problem, Rule},
    validate::Plan,
};

/// The fields of a request whose texts are sent, in this order.
const FIELDS: [&str; 2] = ["prompt", "negative_prompt"];

/// A plan's prompts as tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) prompt: TokenizedText,
    /// Empty where the model does not see it.
    pub(crate) negative: TokenizedText,
    /// See [`Tokens::written`].
    written: OnceLock<Bytes>,
}

/// What is tokenized for one model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct For<'a> {
    pub(crate) served: &'a Served,
    /// The model sees the negative prompt.
    pub(crate) is_guided: bool,
}

impl Tokens {
    /// A request's message that has these prompts and nothing else; made once, however many pictures are drawn of them.
    pub(crate) fn written(&self) -> Bytes {
        let written = self.written.get_or_init(|| {
            let prompts = GenerateRequest {
                prompt: self.prompt.prompt.clone(),
                negative_prompt: self.negative.prompt.clone(),
                ..GenerateRequest::default()
            };
            prompts.encode_to_vec().into()
        });
        Bytes::clone(written)
    }

    /// About so much memory: numbers are small on the wire, and four bytes each here; and both are kept.
    fn bytes(&self) -> usize {
        (1 + 4) * (self.prompt.encoded_len() + self.negative.encoded_len())
    }
}

/// Tokenizes the prompts of a plan.
pub(crate) async fn run(job: &Job, plan: &Plan, of: For<'_>) -> Result<Arc<Tokens>, Error> {
    let asked = Asked {
        pool: &of.served.preprocess.name,
        model_id: of.served.id(),
        syntax: plan.syntax.into(),
        steps: plan.taken(),
        prompt: &plan.prompt,
        negative: of.is_guided.then_some(&*plan.negative_prompt),
    };
    let (kept, metrics) = (&job.shared.tokens, &job.shared.metrics);
    let tokens = if let Some(tokens) = kept.get(asked) {
        metrics.tokens_kept.increment(1);
        tokens
    } else {
        metrics.tokens_asked.increment(1);
        // In a box: it is large, and most requests do without it.
        Box::pin(ask(job, asked, of.served)).await?
    };
    // Not only when they come: a model that replaced another may take fewer.
    fits(&tokens, &of.served.model)?;
    Ok(tokens)
}

/// Has a replica tokenize what is asked, and keeps its answer.
async fn ask(job: &Job, asked: Asked<'_>, served: &Served) -> Result<Arc<Tokens>, Error> {
    let texts = || [Some(asked.prompt), asked.negative].into_iter().flatten();
    let make = |replica_id| TokenizeRequest {
        replica_id,
        texts: texts().map(str::to_owned).collect(),
        syntax: asked.syntax,
        steps: asked.steps,
        model_id: asked.model_id.to_owned(),
    };
    let want = Want::least((&job.claim, job.failfast), served.model_id.as_ref());
    let place = served.preprocess.place(want);
    let send = async |channel, request| aside::client(channel).tokenize(request).await;
    let span = debug_span!("tokenize", otel.kind = "client");
    let answered = aside::answered(job, place, make, send).instrument(span).await;
    let (answer, replica) = answered.map_err(named)?;
    let tokens = Arc::new(tokens(answer.into_inner().texts, texts().count())?);
    job.shared.tokens.keep(asked, &tokens, &replica);
    Ok(tokens)
}

/// The worker knows texts by their index, the caller by their names.
fn named(error: Error) -> Error {
    let Error::Worker(status) = &error else {
        return error;
    };
    let violations = mobula_kit::status::violations(status);
    if violations.is_empty() {
        return error;
    }
    let problem = |(field, why): (String, String)| {
        let digits = field.chars().filter(char::is_ascii_digit).collect::<String>();
        let name = digits.parse().ok().and_then(|index: usize| FIELDS.get(index));
        match name {
            Some(name) => Problem::new(*name, Rule::Wrong(why)),
            None => Problem::new(field, Rule::Wrong(why)),
        }
    };
    Error::Invalid(violations.into_iter().map(problem).collect())
}

fn tokens(texts: Vec<TokenizedText>, asked: usize) -> Result<Tokens, Error> {
    if texts.len() != asked {
        return Err(Error::Answer(
            "tokenize gave another number of prompts than texts",
        ));
    }
    let mut texts = texts.into_iter();
    let mut next = || texts.next().unwrap_or_default();
    Ok(Tokens {
        prompt: next(),
        negative: next(),
        written: OnceLock::new(),
    })
}

/// Refuses a prompt that has more windows than the model takes, before a device sees it.
fn fits(tokens: &Tokens, model: &ModelInfo) -> Result<(), Error> {
    let max = model.max_prompt_windows as usize;
    let most = |prompt: &Prompt| {
        let variants = prompt.spans.iter().flat_map(|span| &span.variants);
        variants.map(|variant| variant.windows.len()).max().unwrap_or(0)
    };
    // All texts of a request have as many windows as the longest.
    let has = tokens.prompt.prompt.as_ref().map_or(0, most);
    if max == 0 || has <= max {
        return Ok(());
    }
    let longer = tokens.negative.token_count > tokens.prompt.token_count;
    let why = format!("needs {has} windows of tokens, and the model takes {max} at most");
    Err(Error::Invalid(vec![Problem::new(
        FIELDS[usize::from(longer)],
        Rule::Wrong(why),
    )]))
}

#[cfg(test)]
mod tests {
    use mobula_proto::common::v1::{PromptSpan, PromptVariant, PromptWindow};

    use super::*;

    fn text(windows: usize, token_count: u32) -> TokenizedText {
        let variant = PromptVariant {
            weight: 1.0,
            windows: vec![PromptWindow::default(); windows],
        };
        let span = PromptSpan {
            until_step: 0,
            variants: vec![variant],
        };
        TokenizedText {
            prompt: Some(Prompt {
                spans: vec![span],
                ..Prompt::default()
            }),
            token_count,
            ..TokenizedText::default()
        }
    }

    #[test]
    fn the_longer_prompt_is_named_when_there_are_too_many_windows() {
        let model = ModelInfo {
            max_prompt_windows: 2,
            ..ModelInfo::default()
        };
        let tokens = |prompt, negative| Tokens {
            prompt: text(3, prompt),
            negative: text(3, negative),
            ..Tokens::default()
        };
        let field = |tokens: &Tokens| fits(tokens, &model).unwrap_err().violations().remove(0).0;
        assert_eq!(field(&tokens(200, 10)), "prompt");
        assert_eq!(field(&tokens(10, 200)), "negative_prompt");
        let short = Tokens {
            prompt: text(2, 100),
            negative: text(2, 10),
            ..Tokens::default()
        };
        assert!(fits(&short, &model).is_ok());
        assert!(
            fits(&tokens(200, 10), &ModelInfo::default()).is_ok(),
            "no limit is told"
        );
    }

    #[test]
    fn prompts_are_written_as_a_request_has_them() {
        for (prompt, negative) in [(2, Some(1)), (1, None)] {
            let tokens = Tokens {
                prompt: text(prompt, 100),
                negative: negative.map_or_else(TokenizedText::default, |windows| text(windows, 10)),
                ..Tokens::default()
            };
            let expected = GenerateRequest {
                prompt: tokens.prompt.prompt.clone(),
                negative_prompt: tokens.negative.prompt.clone(),
                ..GenerateRequest::default()
            };
            for _ in 0..2 {
                assert_eq!(GenerateRequest::decode(tokens.written()), Ok(expected.clone()));
            }
        }
    }

    #[test]
    fn a_text_that_the_worker_refuses_is_told_by_its_field() {
        for (said, field) in [
            ("texts[1]", "negative_prompt"),
            ("texts[0]", "prompt"),
            ("1", "negative_prompt"),
            ("steps", "steps"),
        ] {
            let status = mobula_kit::status::invalid(said, "has too many windows");
            let error = named(Error::Worker(Box::new(status)));
            assert_eq!(error.violations()[0].0, field, "{said}");
        }
    }
}
