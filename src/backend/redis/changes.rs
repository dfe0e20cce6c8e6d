//! What changes an instance while it lives: commits, marks and the inbox.

use super::end::end_message;
use super::record;
use super::reply::Reply;
use super::script;
use super::store::{RedisStore, millis};
use crate::backend::{ClaimTerms, Commit, Committed, Deliver, Delivered, Mark, Result};
use crate::model::{ExecutionId, InstanceRef, Timestamp};

impl RedisStore {
    pub(super) async fn commit_turn(&self, commit: &Commit) -> Result<Committed> {
        let keys = self.keys.instance(&commit.instance);
        let mut call = script::COMMIT
            .on(&[&keys.meta(), &keys.inbox(), &keys.claims()])
            .arg(record::guard_text(&commit.guard))
            .arg(record::guard_text(&commit.next_guard()))
            .arg(record::place_text(commit.status, commit.lane))
            .arg(commit.turn.as_ref())
            .arg(record::pack(&commit.view))
            .arg(&*record::marks_text(&commit.cleared))
            .arg(&*record::marks_text(&commit.marks));
        call = match rare_text(commit) {
            None => call.arg(""),
            Some(rare) => self.with_rare(call.arg(rare), commit),
        };
        let said = call.send_small(&self.links).await?.text()?;
        match said.as_str() {
            "conflict" => Ok(Committed::Conflict),
            "absent" => Ok(Committed::Absent),
            _ => applied(&said).map_or_else(|| Reply::strange("commit", &said), Ok),
        }
    }

    /// Adds what most commits have not.
    fn with_rare(&self, mut call: script::Call, commit: &Commit) -> script::Call {
        if commit.status.is_terminal() {
            let outcome = commit.outcome.as_ref().map(record::pack).unwrap_or_default();
            call = call
                .arg(outcome.as_slice())
                .arg(self.keys.channel(&commit.instance))
                .arg(end_message(&commit.instance, commit.status, &outcome));
        } else {
            // Nobody is told of what goes on.
            call = call.arg("").arg("").arg("");
        }
        for item in &commit.inbox_kept {
            call = call.arg(item.as_ref());
        }
        for (sequence, terms) in &commit.claims_opened {
            call = call.arg(*sequence).arg(terms_text(terms));
        }
        for sequence in &commit.claims_closed {
            call = call.arg(*sequence);
        }
        call
    }

    pub(super) async fn remove_mark(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        mark: Mark,
    ) -> Result<Option<usize>> {
        let call = script::CLEAR_MARK
            .on(&[&self.keys.instance(instance).meta()])
            .arg(execution.to_string())
            .arg(mark.to_string())
            .arg("");
        self.marks_left(call).await
    }

    pub(super) async fn remove_first_start(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
    ) -> Result<Option<usize>> {
        let call = script::CLEAR_MARK
            .on(&[&self.keys.instance(instance).meta()])
            .arg(execution.to_string())
            .arg(Mark::Start.to_string())
            .arg(0);
        self.marks_left(call).await
    }

    async fn marks_left(&self, call: script::Call) -> Result<Option<usize>> {
        let left = call.send_small(&self.links).await?.optional_bytes()?;
        Ok(left.map(|left| record::count_marks(&left)))
    }

    pub(super) async fn deliver_item(&self, deliver: &Deliver) -> Result<Delivered> {
        let keys = self.keys.instance(&deliver.instance);
        let call = script::DELIVER
            .on(&[&keys.meta(), &keys.inbox()])
            .arg(deliver.item.as_ref())
            .arg(deliver.bound.map(|bound| bound.to_string()).unwrap_or_default())
            .arg(u8::from(deliver.park))
            .arg(
                deliver
                    .keep_absent
                    .map(|keep| millis(keep).to_string())
                    .unwrap_or_default(),
            );
        let (word, rest) = call.send(&self.links).await?.word()?;
        let said = rest.into_iter().next().map(Reply::text).transpose()?;
        let strange = || Reply::strange("deliver", &format!("{word} {said:?}"));
        match (word.as_str(), said.as_deref()) {
            ("lane", Some(lane)) => lane.parse().map(Delivered::ToLane).or_else(|_| strange()),
            ("kept", None) => Ok(Delivered::Kept { status: None }),
            ("kept", Some(status)) => match status.parse() {
                Ok(status) => Ok(Delivered::Kept { status: Some(status) }),
                Err(_) => strange(),
            },
            ("over", Some(status)) => status.parse().map(Delivered::Over).or_else(|_| strange()),
            ("full", None) => Ok(Delivered::Full),
            ("absent", None) => Ok(Delivered::Absent),
            _ => strange(),
        }
    }
}

/// Reads `applied <items left in the inbox> <updated>`.
fn applied(said: &str) -> Option<Committed> {
    let (left, updated) = said.strip_prefix("applied ")?.split_once(' ')?;
    Some(Committed::Applied {
        inbox_left: left.parse().ok()?,
        updated_at: Timestamp::from_millis(updated.parse().ok()?),
    })
}

/// What most commits have not: `None` if this has not either.
fn rare_text(commit: &Commit) -> Option<String> {
    let (ends, renews, drops) = (
        commit.status.is_terminal(),
        commit.next_execution.is_some(),
        commit.drop_input,
    );
    let (taken, kept) = (commit.inbox_taken, commit.inbox_kept.len());
    let (opened, closed) = (commit.claims_opened.len(), commit.claims_closed.len());
    let is_usual = !ends && !renews && !drops && taken + kept + opened + closed == 0;
    let numbers = [ends.into(), renews.into(), drops.into(), taken, kept, opened, closed];
    (!is_usual).then(|| numbers.map(|number: usize| number.to_string()).join(" "))
}

/// `<start by> <timeout> <heartbeat>`, all in ms; `-` for what is not limited.
fn terms_text(terms: &ClaimTerms) -> String {
    let text = |millis: Option<u64>| millis.map_or_else(|| "-".to_owned(), |millis| millis.to_string());
    format!(
        "{} {} {}",
        text(terms.start_by.map(|at| at.as_millis())),
        text(terms.timeout.map(millis)),
        text(terms.heartbeat.map(millis))
    )
}
