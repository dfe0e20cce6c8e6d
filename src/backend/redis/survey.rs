//! All that is stored of instances, found by walking the keys themselves: for audits.
//!
//! The walk is the server's `SCAN`, which holds nobody up and shows every key that is there throughout. In a cluster it has to be made on each node.

use deadpool_redis::redis::{cmd, pipe};

use super::index::GROUPS;
use super::keys::{instance_id, instance_part};
use super::record;
use super::reply::Reply;
use super::script;
use super::store::RedisStore;
use crate::backend::{Error, Result, Stray, Survey};
use crate::model::{AppId, InstanceRef};

/// The first letter of a token: keys, then the index of each app.
const KEYS: char = 'k';
const INDEX: char = 'x';

impl RedisStore {
    /// A token is `k` and the server's cursor; then `x`, the app, the number of one of its index's sets, and that set's own cursor.
    pub(super) async fn read_survey(&self, after: Option<&str>, most: usize) -> Result<Survey> {
        let token = after.unwrap_or("k0");
        let strange = || {
            Error::permanent(format!(
                "{token:?} is not the token of a page: pass the `next` of the page before, unchanged"
            ))
        };
        if let Some(cursor) = token.strip_prefix(KEYS) {
            return self.survey_keys(cursor, most).await;
        }
        let mut parts = token.strip_prefix(INDEX).ok_or_else(strange)?.splitn(3, '/');
        let (Some(app), Some(group), Some(cursor)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(strange());
        };
        let app = AppId::new(app).map_err(|_| strange())?;
        let group = group.parse().ok().filter(|group| *group < GROUPS.len());
        self.survey_index(&app, group.ok_or_else(strange)?, cursor, most).await
    }

    async fn survey_keys(&self, cursor: &str, most: usize) -> Result<Survey> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(self.keys.instances());
        scan.arg("COUNT").arg(most.max(1));
        let mut reply = Reply::new("SCAN", self.links.send("SCAN", &scan).await?)
            .items()?
            .into_iter();
        let (Some(next), Some(keys)) = (reply.next(), reply.next()) else {
            return Ok(Survey::default());
        };
        let mut survey = Survey {
            next: match next.text()?.as_str() {
                "0" => self.first_index(None).await?,
                cursor => Some(format!("{KEYS}{cursor}")),
            },
            ..Survey::default()
        };
        let (mut records, mut parts) = (Vec::new(), Vec::new());
        for key in keys.list()? {
            let key = std::str::from_utf8(&key).ok();
            match key.and_then(|key| instance_part(self.keys.namespace(), key)) {
                Some((instance, part)) if part == "meta" => records.push(instance),
                Some((instance, part)) => parts.push(Stray { instance, part }),
                None => {}
            }
        }
        self.add_active(&mut survey, records).await?;
        self.add_strays(&mut survey, parts).await?;
        Ok(survey)
    }

    /// Of most instances, which are over, only one field is read.
    async fn add_active(&self, survey: &mut Survey, instances: Vec<InstanceRef>) -> Result<()> {
        if instances.is_empty() {
            return Ok(());
        }
        let mut fields = pipe();
        for instance in &instances {
            fields.hget(self.keys.instance(instance).meta(), "state");
        }
        let replies = self.links.send_all("`survey`", &fields).await?;
        let mut active = Vec::new();
        for (instance, reply) in instances.into_iter().zip(replies) {
            let state = Reply::new("HGET", reply).optional_bytes()?.unwrap_or_default();
            if record::is_over(&instance, &state) != Some(true) {
                active.push(instance);
            }
        }
        if active.is_empty() {
            return Ok(());
        }
        let mut small = pipe();
        for instance in &active {
            let meta = self.keys.instance(instance).meta();
            small.cmd("HMGET").arg(meta).arg(&record::SMALL_FIELDS);
        }
        let replies = self.links.send_all("`survey`", &small).await?;
        for (instance, reply) in active.into_iter().zip(replies) {
            match record::read_small(&instance, Reply::new("HMGET", reply)) {
                Ok(Some(record)) => survey.active.push((instance, record)),
                Ok(None) => {}
                Err(error) => survey.unreadable.push((instance, error.to_string())),
            }
        }
        Ok(())
    }

    async fn add_strays(&self, survey: &mut Survey, parts: Vec<Stray>) -> Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut looks = pipe();
        for stray in &parts {
            let keys = self.keys.instance(&stray.instance);
            looks.exists(keys.meta()).pttl(keys.part(&stray.part));
        }
        let mut replies = self.links.send_all("`survey`", &looks).await?.into_iter();
        for stray in parts {
            let (Some(exists), Some(ttl)) = (replies.next(), replies.next()) else {
                break;
            };
            let has_record = Reply::new("EXISTS", exists).number()? != 0;
            if !has_record && Reply::new("PTTL", ttl).number()? == -1 {
                survey.strays.push(stray);
            }
        }
        Ok(())
    }

    pub(super) async fn look_at_stray(&self, stray: &Stray, remove: bool) -> Result<bool> {
        let keys = self.keys.instance(&stray.instance);
        let call = script::STRAY
            .on(&[&keys.meta(), &keys.part(&stray.part)])
            .arg(u8::from(remove));
        Ok(call.send(&self.links).await?.number()? != 0)
    }

    /// The token of the first app after this one.
    async fn first_index(&self, after: Option<&AppId>) -> Result<Option<String>> {
        let apps = self.read_apps().await?.into_iter().map(|app| app.id);
        let next = apps.into_iter().find(|app| after.is_none_or(|after| app > after));
        Ok(next.map(|app| format!("{INDEX}{app}/0/0")))
    }

    async fn survey_index(&self, app: &AppId, group: usize, cursor: &str, most: usize) -> Result<Survey> {
        let mut scan = cmd("ZSCAN");
        scan.arg(self.keys.index(app, GROUPS[group])).arg(cursor);
        scan.arg("COUNT").arg(most.max(1));
        let mut reply = Reply::new("ZSCAN", self.links.send("ZSCAN", &scan).await?)
            .items()?
            .into_iter();
        let (Some(next), Some(members)) = (reply.next(), reply.next()) else {
            return Ok(Survey::default());
        };
        let mut survey = Survey {
            next: match next.text()?.as_str() {
                "0" if group + 1 < GROUPS.len() => Some(format!("{INDEX}{app}/{}/0", group + 1)),
                "0" => self.first_index(Some(app)).await?,
                cursor => Some(format!("{INDEX}{app}/{group}/{cursor}")),
            },
            ..Survey::default()
        };
        let ids = members.pairs()?.into_iter().filter_map(|(id, _)| instance_id(&id));
        let instances: Vec<InstanceRef> = ids.map(|id| InstanceRef::new(app.clone(), id)).collect();
        if instances.is_empty() {
            return Ok(survey);
        }
        let mut looks = pipe();
        for instance in &instances {
            looks.exists(self.keys.instance(instance).meta());
        }
        let replies = self.links.send_all("`survey`", &looks).await?;
        for (instance, reply) in instances.into_iter().zip(replies) {
            if Reply::new("EXISTS", reply).number()? == 0 {
                survey.indexed.push(instance);
            }
        }
        Ok(survey)
    }
}
