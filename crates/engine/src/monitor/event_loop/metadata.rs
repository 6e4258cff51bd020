//! The metadata document of the guest, and changes of it. A document that was changed is kept for the next start.

use firebuild_guest_proto::metadata::{Document, MAX_METADATA_BYTES, fits, merge};

use super::EventLoop;
use crate::instance::RECORDS;
use crate::monitor::control::{Answer, Request};

impl EventLoop<'_, '_> {
    /// What the guest has been given to find.
    pub(crate) fn with_metadata(mut self, document: Option<Document>) -> Self {
        self.metadata = document;
        self
    }

    /// Answers a request that is about the document.
    pub(super) fn mmds(&mut self, request: &Request) -> Answer {
        let Some(current) = &self.metadata else {
            return Answer::refused("it was started without metadata (--no-mmds)");
        };
        let changed = match request {
            Request::MmdsPut { document } => document.clone(),
            Request::MmdsPatch { document } => {
                let mut changed = current.clone();
                merge(&mut changed, document.clone());
                changed
            }
            _ => {
                return Answer {
                    document: Some(current.clone()),
                    ..Answer::done()
                };
            }
        };
        if !fits(&changed) {
            return Answer::refused(format!(
                "the document would be larger than {MAX_METADATA_BYTES} bytes"
            ));
        }
        match self.pausing.put_metadata(&changed) {
            Ok(true) => {}
            Ok(false) => {
                if let Err(error) = self.agent.metadata(changed.clone()) {
                    self.fault(&error);
                    return Answer::refused("its guest does not take it");
                }
            }
            Err(error) => return Answer::refused(error.to_string()),
        }
        let kept = self.owned.write(RECORDS.metadata, &changed);
        self.metadata = Some(changed);
        match kept {
            Ok(()) => Answer::done(),
            Err(error) => Answer::refused(format!(
                "the guest has it, but it is not kept for another start: {error}"
            )),
        }
    }
}
