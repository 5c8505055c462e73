//! From one deployment of an application to another that has taken its place: a request is drawn again there, and the
//! pictures that its caller has are not sent again.

use tonic::Status;

use super::Draw;
use crate::Error;

impl Draw<'_> {
    /// The same for a caller who has these pictures already.
    pub(crate) fn having(mut self, sent: Option<Vec<bool>>) -> Self {
        self.sent = sent.unwrap_or(self.sent);
        self
    }

    /// Other deployments serve the application now: it is to be drawn there, from the start. Gives the pictures that the
    /// caller has.
    ///
    /// # Errors
    /// When a replica had begun and it has been started again too often.
    pub(crate) async fn moves(mut self) -> Result<Vec<bool>, Error> {
        if self.has_begun {
            let reason = "other deployments serve the application now";
            self.restart(reason.to_owned(), Status::unavailable(reason))
                .await?;
        }
        Ok(self.sent)
    }
}
