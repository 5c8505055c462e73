//! What a request needs before it is drawn: its refiner, tokens for each model, pixels of its files.

use mobula_proto::image::v1 as image;
use tokio::time::Instant;

use super::{Job, Served, find::Wanted};
use crate::{
    Error,
    draw::{Drawer, Ready},
    prepare,
    problem::{Problem, Rule},
    tokenize::{self, For},
    validate::Plan,
};

impl Job {
    /// The refiner's application, where one is asked for; that there is none is one more problem of the request.
    pub(super) async fn refiner(
        &self,
        request: &image::GenerateRequest,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Served>, Error> {
        let asked = request.refiner.as_ref().filter(|asked| !asked.model.is_empty());
        let Some(asked) = asked else {
            return Ok(None);
        };
        let wanted = Wanted {
            application: &asked.model,
            model_id: &asked.model_id,
            is_admitted: false,
        };
        let (field, known) = match self.find(wanted).await {
            Ok(served) => return Ok(Some(served)),
            Err(Error::UnknownModel { known, .. }) => ("refiner.model", known),
            Err(Error::UnknownModelId { known, .. } | Error::ModelIdNotNamed { known }) => {
                ("refiner.model_id", known)
            }
            Err(error) => return Err(error),
        };
        problems.push(Problem::new(field, Rule::OneOf(known)));
        Ok(None)
    }

    /// Tokens for each model, and pixels of the files; all at once.
    pub(super) async fn prepare<'a>(
        &self,
        plan: &Plan,
        served: &'a Served,
        refiner: Option<&'a Served>,
    ) -> Result<Ready<'a>, Error> {
        let begun = Instant::now();
        let tokens = async |served: &'a Served, is_guided| {
            let of = For { served, is_guided };
            let tokens = tokenize::run(self, plan, of).await?;
            Ok::<_, Error>(Drawer::new(served, tokens))
        };
        let refiner = async {
            match refiner.zip(plan.refine.as_ref()) {
                Some((refiner, refine)) => tokens(refiner, refine.is_guided).await.map(Some),
                None => Ok(None),
            }
        };
        let (first, refiner, inputs) = tokio::try_join!(
            tokens(served, plan.is_guided),
            refiner,
            prepare::run(self, served, plan)
        )?;
        Ok(Ready {
            first,
            refiner,
            inputs,
            took: begun.elapsed(),
        })
    }
}
