//! Poison: messages that nobody can read, so many and no more. They have to end among the dead, and nothing else may.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use leveret::backend::{self, Backend, Message, Properties, Queue};
use leveret::{AppId, Lane};

use crate::apps::{APPS, LANES};

const BUNDLE: &str = "application/vnd.leveret.bundle+msgpack";

/// The messages that were put in.
#[derive(Default)]
pub(crate) struct Poison(Mutex<Vec<String>>);

impl Poison {
    /// Puts one into some queue, and tries until that is confirmed; it may be there more than once then.
    pub(crate) async fn put(&self, backend: &Backend, random: &mut fastrand::Rng) {
        let app = AppId::new(APPS[random.usize(..APPS.len())]).expect("valid");
        let (queue, content_type) = match random.u8(..3) {
            0 => (Queue::Workflows(app), None),
            1 => (Queue::Activities(app), Some(BUNDLE.to_owned())),
            _ => (Queue::Events(app, random.u16(..LANES) as Lane), Some(BUNDLE.to_owned())),
        };
        let body = {
            let mut put = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let body = format!("poison {}", put.len());
            put.push(body.clone());
            body
        };
        let message = Message {
            queue,
            body: body.into(),
            properties: Properties {
                content_type,
                ..Properties::default()
            },
        };
        while backend.broker().publish(message.clone()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    /// How many were put in.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Empties the dead queues. Says what is missing there and what does not belong there.
    pub(crate) async fn collect(&self, backend: &Backend) -> backend::Result<Vec<String>> {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        let mut problems = Vec::new();
        let put = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for app in APPS {
            let queue = Queue::Dead(AppId::new(app).expect("valid"));
            let depth = backend.broker().depth(&queue).await?.map_or(0, |depth| depth.messages);
            let mut consumer = backend.broker().consume(&queue, 100).await?;
            for _ in 0..depth {
                let Some(delivery) = consumer.next().await else { break };
                let body = String::from_utf8_lossy(&delivery.body).into_owned();
                if put.contains(&body) {
                    *found.entry(body).or_default() += 1;
                } else {
                    let headers = &delivery.properties.headers;
                    problems.push(format!("{queue} holds what is no poison: {body:.200} {headers:?}"));
                }
                delivery.ack();
            }
            consumer.cancel().await?;
        }
        let missing = put.iter().filter(|body| !found.contains_key(*body));
        problems.extend(missing.map(|body| format!("{body} is not among the dead")));
        Ok(problems)
    }
}
