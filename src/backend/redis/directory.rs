//! Apps and their workers.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::{cmd, pipe};

use super::reply::Reply;
use super::script;
use super::store::{RedisStore, millis};
use crate::backend::{App, Result, WorkerInfo};
use crate::model::{AppId, Timestamp, WorkerId};

impl RedisStore {
    pub(super) async fn register_app(&self, app: &AppId, lanes: u16) -> Result<u16> {
        let mut both = pipe();
        both.atomic().hset_nx(self.keys.apps(), app.as_str(), lanes).ignore();
        both.hget(self.keys.apps(), app.as_str());
        let reply = self.links.send_all("`adopt_app`", &both).await?.into_iter().next();
        let lanes = Reply::new("HGET", reply.unwrap_or_default()).text()?;
        lanes.parse().or_else(|_| Reply::strange("HGET", &lanes))
    }

    pub(super) async fn read_app(&self, app: &AppId) -> Result<Option<App>> {
        let mut both = pipe();
        both.hget(self.keys.apps(), app.as_str())
            .zscore(self.keys.seen(), app.as_str());
        let mut replies = self.links.send_all("`app`", &both).await?.into_iter();
        let lanes = Reply::new("HGET", replies.next().unwrap_or_default()).optional_bytes()?;
        let seen = Reply::new("ZSCORE", replies.next().unwrap_or_default()).optional_bytes()?;
        Ok(lanes.and_then(|lanes| app_of(app.as_str().as_bytes(), &lanes, seen.as_deref())))
    }

    pub(super) async fn read_apps(&self) -> Result<Vec<App>> {
        let mut both = pipe();
        both.hgetall(self.keys.apps())
            .zrange_withscores(self.keys.seen(), 0, -1);
        let mut replies = self.links.send_all("`apps`", &both).await?.into_iter();
        let lanes = Reply::new("HGETALL", replies.next().unwrap_or_default()).pairs()?;
        let seen = Reply::new("ZRANGE", replies.next().unwrap_or_default()).pairs()?;
        let seen: HashMap<Bytes, Bytes> = seen.into_iter().collect();
        let apps = lanes
            .iter()
            .filter_map(|(app, lanes)| app_of(app, lanes, seen.get(app).map(|at| at.as_ref())));
        let mut apps: Vec<App> = apps.collect();
        apps.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(apps)
    }

    pub(super) async fn forget_app(&self, app: &AppId) -> Result<()> {
        // A due-set's shell needs no removing: Redis drops a set with its last member.
        let mut of_namespace = pipe();
        of_namespace
            .atomic()
            .hdel(self.keys.apps(), app.as_str())
            .zrem(self.keys.seen(), app.as_str());
        self.links.send_all("`remove_app`", &of_namespace).await?;
        let mut workers = cmd("DEL");
        for key in self.keys.workers(app) {
            workers.arg(key);
        }
        self.links.send("DEL", &workers).await?;
        Ok(())
    }

    pub(super) async fn note_beat(&self, worker: &WorkerInfo, ttl: Duration) -> Result<()> {
        let [until, info] = self.keys.workers(&worker.app);
        let call = script::BEAT
            .on(&[&until, &info])
            .arg(worker.id.to_string())
            .arg(worker.encode().as_ref())
            .arg(millis(ttl));
        let now = call.send(&self.links).await?.number()?;
        let mut seen = cmd("ZADD");
        seen.arg(self.keys.seen()).arg("GT").arg(now).arg(worker.app.as_str());
        self.links.send("ZADD", &seen).await?;
        Ok(())
    }

    pub(super) async fn remove_worker(&self, app: &AppId, worker: WorkerId) -> Result<()> {
        let [until, info] = self.keys.workers(app);
        let mut both = pipe();
        both.atomic()
            .zrem(until, worker.to_string())
            .hdel(info, worker.to_string());
        self.links.send_all("`leave`", &both).await?;
        Ok(())
    }

    pub(super) async fn read_workers(&self, app: &AppId) -> Result<Vec<WorkerInfo>> {
        let [until, info] = self.keys.workers(app);
        let entries = script::WORKERS.on(&[&until, &info]).send(&self.links).await?.items()?;
        let mut workers = Vec::with_capacity(entries.len());
        for entry in entries {
            let entry = entry.optional_bytes()?;
            workers.extend(entry.and_then(|entry| WorkerInfo::decode(&entry)));
        }
        workers.sort_by_key(|worker| worker.id);
        Ok(workers)
    }
}

/// `None` for what is no app: a name or number that this release would not write.
fn app_of(name: &[u8], lanes: &[u8], seen: Option<&[u8]>) -> Option<App> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let seen: Option<f64> = seen.and_then(text).and_then(|seen| seen.parse().ok());
    Some(App {
        id: AppId::new(text(name)?).ok()?,
        lanes: text(lanes)?.parse().ok()?,
        last_seen: seen.map(|at| Timestamp::from_millis(at as u64)),
    })
}
