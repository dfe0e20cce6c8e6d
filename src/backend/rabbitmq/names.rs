//! What exchanges and queues are called on the server.
//!
//! Namespaces and app IDs contain no dot, so a name is read back without ambiguity.

use crate::backend::Queue;
use crate::model::{AppId, Namespace};

/// The names of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Names {
    namespace: Namespace,
    exchange: String,
}

impl Names {
    pub(super) fn new(namespace: Namespace) -> Self {
        let exchange = format!("leveret.{namespace}");
        Self { namespace, exchange }
    }

    /// The exchange that everything is published to.
    pub(super) fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The exchange that takes what the first one cannot route.
    pub(super) fn alternate_exchange(&self) -> String {
        format!("{}.unrouted", self.exchange)
    }

    /// A queue's name on the server, which is its routing key too.
    pub(super) fn queue(&self, queue: &Queue) -> String {
        format!("{}.{queue}", self.namespace)
    }

    /// The queue that a routing key names, or `None` if it is not the exact name of a queue of this namespace.
    pub(super) fn read(&self, routing_key: &str) -> Option<Queue> {
        let local = routing_key.strip_prefix(self.namespace.as_str())?.strip_prefix('.')?;
        Queue::from_local_name(local)
    }
}

/// The queues of an app that has this many lanes; the dead queue first, because the others dead-letter into it.
pub(super) fn queues_of(app: &AppId, lanes: u16) -> Vec<Queue> {
    let mut queues = vec![
        Queue::Dead(app.clone()),
        Queue::Workflows(app.clone()),
        Queue::Activities(app.clone()),
    ];
    queues.extend((0..lanes).map(|lane| Queue::Events(app.clone(), lane)));
    queues
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_s_name_is_read_back_exactly() {
        let names = Names::new(Namespace::new("shop").expect("valid"));
        let app = AppId::new("orders").expect("valid");
        let mut queues = queues_of(&app, 3);
        queues.push(Queue::Unrouted);
        queues.push(Queue::Workflows(AppId::new("unrouted").expect("valid")));
        for queue in queues {
            assert_eq!(names.read(&names.queue(&queue)), Some(queue));
        }
        assert_eq!(names.queue(&Queue::Events(app, 2)), "shop.orders.events.2");
    }

    proptest::proptest! {
        #![proptest_config(crate::backend::many_inputs())]

        #[test]
        fn any_routing_key_is_a_queue_s_exact_name_or_none(
            key in "(shop|sho|n)?\\.?([a-z-]{0,6}|amq|unrouted)\\.(workflows|activities|events|dead|event)?(\\.[+-]?[0-9]{0,6})?|\\PC{0,30}"
        ) {
            let names = Names::new(Namespace::new("shop").expect("valid"));
            if let Some(queue) = names.read(&key) {
                assert_eq!(names.queue(&queue), key);
            }
        }
    }

    #[test]
    fn what_is_not_a_queue_s_name_is_none() {
        let names = Names::new(Namespace::new("shop").expect("valid"));
        for other in [
            "",
            "shop",
            "shop.",
            "shop2.orders.workflows",
            "other.orders.workflows",
            "shop.orders",
            "shop.orders.events",
            "shop.orders.events.x",
            "shop.orders.events.03",
            "shop.orders.events.+3",
            "shop.orders.events.65536",
            "shop.orders.workflows.1",
            "shop.-.workflows",
            "shop..workflows",
        ] {
            assert_eq!(names.read(other), None, "{other}");
        }
    }
}
