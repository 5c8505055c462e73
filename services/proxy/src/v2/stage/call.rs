//! Calls of one stage: read, run wherever their application is served, and answered.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::future::BoxFuture;

use super::{
    super::{
        ask::{Answer, Ask},
        catalog::Which,
        given::Given,
        infer::{Oip, Terms, sooner},
        pipeline::{self, EVERY},
        tensor::shown,
    },
    Stage,
    denoise::{self, Draw},
    run::{Visit, run},
    text::{self, Windows},
    tokenize::{self, Texts},
    vae::{self, Decode, Encode},
};
use crate::{
    Error,
    generate::{Aside, Beside},
};

/// A call under way; gives its id, too.
type Answering<'a> = BoxFuture<'a, Result<(Arc<str>, Answer), Error>>;

/// A request that was read.
pub(super) enum Asked {
    Tokenize(Texts),
    Encode(Windows),
    Denoise(Box<Draw>),
    Decode(Decode),
    Moments(Encode),
}

impl Oip {
    /// Has one stage of a model answer.
    pub(in crate::v2) fn stage(&self, stage: Stage, which: Which, ask: Ask, terms: Terms) -> Answering<'_> {
        Box::pin(self.answer(stage, which, ask, terms))
    }

    async fn answer(
        &self,
        stage: Stage,
        which: Which,
        ask: Ask,
        terms: Terms,
    ) -> Result<(Arc<str>, Answer), Error> {
        let mut given = Given::new(ask.inputs, ask.parameters);
        given.only(stage.names(), &[EVERY]);
        let common = pipeline::common(&mut given);
        if stage != Stage::VaeDecoder {
            for name in &ask.outputs {
                if !stage.outputs().iter().any(|spec| spec.name == name) {
                    let names: Vec<_> = stage.outputs().iter().map(|spec| spec.name).collect();
                    let why = format!("is no output; there are {}", names.join(", "));
                    given.wrong(shown(name.clone()), why);
                }
            }
        }
        let asked = match stage {
            Stage::Tokenize => Some(Asked::Tokenize(tokenize::read(&mut given, self.max_prompts))),
            Stage::TextEncoder => {
                let clip_skip = given.small("clip_skip").unwrap_or_default();
                let windows = text::windows(&mut given, ("input_ids", "input_ids_2"), clip_skip);
                Some(Asked::Encode(windows))
            }
            Stage::Denoiser => Some(Asked::Denoise(Box::new(denoise::read(&mut given)))),
            Stage::VaeDecoder => Some(Asked::Decode(vae::decode(&mut given, &ask.outputs))),
            Stage::VaeEncoder => vae::encode(&mut given).map(Asked::Moments),
        };
        let mut problems = terms.problems;
        problems.extend(given.problems);
        let Some(mut asked) = asked.filter(|_| problems.is_empty()) else {
            return Err(Error::Invalid(problems));
        };
        let beside = Beside {
            application: which.application.name.clone(),
            model_id: which.model_id.clone(),
            request_id: terms.request_id,
            stage: stage.name(),
            caller: terms.caller,
            deadline: sooner(terms.deadline, common.timeout),
            priority: match i32::from(common.priority) {
                0 => terms.priority,
                priority => priority,
            },
            door: terms.door,
        };
        if let Asked::Denoise(draw) = &mut asked {
            draw.request.priority = beside.priority;
        }
        let call = self.generator.beside(beside)?;
        let ran = call.run(move |call| Box::pin(async move { wherever(&asked, call).await }));
        let (id, mut answer) = ran.await?;
        if !ask.outputs.is_empty() {
            answer.outputs.retain(|tensor| ask.outputs.contains(&tensor.name));
        }
        Ok((id, answer))
    }
}

/// Where its application is served: a call that waits at deployments which others take the place of goes to those.
async fn wherever(asked: &Asked, call: &Aside) -> Result<Answer, Error> {
    let admitted = AtomicBool::new(false);
    let visit = Visit {
        job: call.job(),
        admitted: &admitted,
    };
    let mut moves = 0;
    loop {
        let ran = async {
            let served = call.served(admitted.load(Ordering::Relaxed)).await?;
            run(asked, visit, served).await
        };
        let ran = ran.await;
        if !call.job().follows(&ran, &mut moves) {
            return ran;
        }
    }
}
