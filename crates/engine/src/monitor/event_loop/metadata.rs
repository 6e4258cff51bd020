//! The metadata document of the guest, and changes of it. A document that was changed is kept for the next start.

use firebuild_guest_proto::metadata::{Document, MAX_METADATA_BYTES, fits, merge};

use super::EventLoop;
use crate::instance::RECORDS;
use crate::monitor::control::{Answer, Request, Verdict};
use crate::monitor::vmm::Command;

impl EventLoop<'_, '_> {
    /// What the guest has been given to find.
    pub(crate) fn with_metadata(mut self, document: Option<Document>) -> Self {
        self.metadata = document;
        self
    }

    /// Answers a request that is about the document.
    pub(super) fn mmds(&mut self, request: &Request) -> Verdict {
        let refused = |problem: String| Verdict::Answer(Answer::refused(problem));
        let Some(current) = &self.metadata else {
            return refused("it was started without metadata (--no-mmds)".to_owned());
        };
        let changed = match request {
            Request::MmdsPut { document } => document.clone(),
            Request::MmdsPatch { document } => {
                let mut changed = current.clone();
                merge(&mut changed, document.clone());
                changed
            }
            _ => {
                return Verdict::Answer(Answer {
                    document: Some(current.clone()),
                    ..Answer::done()
                });
            }
        };
        if !fits(&changed) {
            return refused(format!(
                "the document would be larger than {MAX_METADATA_BYTES} bytes"
            ));
        }
        if self.vmm.serves_metadata() {
            // It would be made of the old document.
            if self.putting {
                return refused("its metadata are being changed at this moment".to_owned());
            }
            return match self.vmm.tell(Command::Metadata(changed)) {
                Ok(work) => {
                    self.putting = true;
                    Verdict::Working(work)
                }
                Err(problem) => refused(problem),
            };
        }
        if let Err(error) = self.agent.metadata(changed.clone()) {
            self.fault(&error);
            return refused("its guest does not take it".to_owned());
        }
        Verdict::Answer(self.keep_metadata(changed))
    }

    /// The guest has this document; it is kept.
    pub(super) fn keep_metadata(&mut self, document: Document) -> Answer {
        let kept = self.owned.write(RECORDS.metadata, &document);
        self.metadata = Some(document);
        match kept {
            Ok(()) => Answer::done(),
            Err(error) => Answer::refused(format!(
                "the guest has it, but it is not kept for another start: {error}"
            )),
        }
    }
}
