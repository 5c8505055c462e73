//! Drawing a plan wherever its application is served: where other deployments take the place of those that it came to, as
//! when a config splits an application or makes it whole again, the request goes there.
//!
//! Invariant: a request is admitted once, by the deployments that it came to.

use super::{Job, Served};
use crate::{Error, draw::Draw, place::Place, validate::Plan};

/// How often a request goes to other deployments of its application: a change, the way back, and others before it is drawn.
const MAX_MOVES: u32 = 16;

/// Places at the deployment that draws, and at the refiner's.
type Places = (Place, Option<Place>);

impl Job {
    /// Whether what came of a request is that others have taken the place of its deployments, so that it goes there, for one
    /// more of its `moves`.
    pub(crate) fn follows<T>(&self, came: &Result<T, Error>, moves: &mut u32) -> bool {
        let Err(why @ Error::Moved { .. }) = came else {
            return false;
        };
        let follows = *moves < MAX_MOVES;
        if follows {
            *moves += 1;
            tracing::info!(request_id = &*self.id, %why, "a request goes to other deployments");
        }
        follows
    }

    /// Draws a plan.
    pub(super) async fn draw_wherever(
        &self,
        plan: &Plan,
        (mut served, mut refiner): (Served, Option<Served>),
        mut places: Places,
    ) -> Result<(), Error> {
        let (mut sent, mut moves) = (None, 0);
        loop {
            let at = (plan, &served, refiner.as_ref());
            let drawn = self.draw(at, places, &mut sent).await;
            if !self.follows(&drawn, &mut moves) {
                return drawn;
            }
            served = self.again(&served).await?;
            if let Some(refiner) = &mut refiner {
                *refiner = self.again(refiner).await?;
            }
            self.trail.found(&served);
            let second = refiner.as_ref().zip(plan.refine.as_ref());
            let second = second.map(|(refiner, refine)| refiner.place(self, (refine.cost, 0)));
            places = (served.place(self, (plan.cost, plan.held_bytes())), second);
        }
    }

    /// Draws a plan, for a caller who has some of its pictures already.
    async fn draw(
        &self,
        (plan, served, refiner): (&Plan, &Served, Option<&Served>),
        (first, second): (Place, Option<Place>),
        sent: &mut Option<Vec<bool>>,
    ) -> Result<(), Error> {
        let ready = self.prepare(plan, served, refiner).await?;
        let mut draw = Draw::new(self, plan, ready).having(sent.take());
        match draw.run(first, second).await {
            Err(why @ Error::Moved { .. }) => {
                *sent = Some(draw.moves().await?);
                Err(why)
            }
            drawn => drawn,
        }
    }
}
