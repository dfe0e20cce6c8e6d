//! What is to be done: the orders, and the instance IDs that they go by.

use std::collections::HashSet;
use std::path::Path;

use contracts::Order;
use leveret::InstanceId;
use uuid::Uuid;

use crate::problem::Problem;

const SAMPLE: &str = include_str!("../orders.json");
/// What the instances of one input have in common.
pub(crate) const TAG: &str = "input";

/// See the module.
pub(crate) struct Plan {
    pub(crate) orders: Vec<Order>,
    /// Follows from the input alone, so that the same input finds its instances again.
    pub(crate) label: String,
    /// Where the orders come from, for people.
    pub(crate) source: String,
}

impl Plan {
    /// Reads a file of orders, or the sample. `again` sets another run of the same input apart.
    pub(crate) fn read(file: Option<&Path>, again: Option<&str>) -> Result<Self, Problem> {
        let Some(path) = file else {
            return Self::parse(SAMPLE, "workers/demo/orders.json".into(), again);
        };
        let source = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Problem::Usage(format!("{source}: {error}")))?;
        Self::parse(&text, source, again)
    }

    fn parse(text: &str, source: String, again: Option<&str>) -> Result<Self, Problem> {
        let refuse = |problem: String| Problem::Usage(format!("{source}: {problem}"));
        let orders: Vec<Order> = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if orders.is_empty() {
            return Err(refuse("there are no orders in it".into()));
        }
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
        let mut label = hash[..6].to_owned();
        if let Some(again) = again {
            label = format!("{label}-{again}");
        }
        let plan = Self {
            orders,
            label,
            source: source.clone(),
        };
        let mut seen = HashSet::new();
        for order in &plan.orders {
            if !seen.insert(&order.id) {
                return Err(refuse(format!("there are two orders {:?}", order.id)));
            }
            if order.items.is_empty() {
                return Err(refuse(format!("order {:?} has no items", order.id)));
            }
            InstanceId::chosen(plan.instance_id(order))
                .map_err(|error| refuse(format!("order {:?}: {error}", order.id)))?;
        }
        Ok(plan)
    }

    /// The instance that takes the order through.
    pub(crate) fn instance_id(&self, order: &Order) -> String {
        format!("order-{}.{}", order.id, self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Plan::parse(text, "orders.json".into(), None)
            .err()
            .expect("refused")
            .to_string()
    }

    #[test]
    fn the_sample_holds_twelve_orders_with_ids_of_their_own() {
        let plan = Plan::read(None, None).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(plan.orders.len(), 12);
        assert_eq!(plan.instance_id(&plan.orders[0]), format!("order-1001.{}", plan.label));
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused_with_its_name() {
        assert!(refusal("[{]").starts_with("orders.json: "));
        assert_eq!(refusal("[]"), "orders.json: there are no orders in it");
        let order = r#"{"id": "1", "customer": "A", "card": "1", "country": "B", "items": [{"sku": "a", "cents": 1}]}"#;
        assert_eq!(
            refusal(&format!("[{order}, {order}]")),
            r#"orders.json: there are two orders "1""#
        );
    }
}
