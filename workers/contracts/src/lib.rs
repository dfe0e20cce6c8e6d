//! What the example services agree on: typed names and values, no logic but a sum.
//!
//! An order goes like this. `checkout` on app `orders` reserves the stock, waits for an approval if the order is large, has `payments` charge the card,
//! has the workflow `ship` on app `shipping` bring the parcel on its way, then tells the customer and books loyalty points side by side. If a step
//! fails, what was done before is undone: the money goes back, the stock is released.
//!
//! Nothing is random. What happens to an order follows from its fields:
//!
//! | field | value | what happens |
//! |---|---|---|
//! | `card` | ends with `0002` | the bank declines it for good |
//! | `card` | ends with `0119` | the bank does not answer the first two attempts; the third works |
//! | `items[].sku` | `unicorn` | not in stock: the order ends at once |
//! | `country` | `Atlantis` | no carrier goes there: the payment is refunded, the stock released |
//! | sum of `items[].cents` | 1,000.00 and more | a manager has to approve; over 5,000.00 the manager of the demo refuses |

use std::fmt;

use leveret::{Activity, Event, Workflow};
use serde::{Deserialize, Serialize};

/// Takes an order from the reservation to the parcel.
pub const CHECKOUT: Workflow<Order, Summary> = Workflow::new("orders", "checkout");
/// Takes what is ordered out of the stock.
pub const RESERVE: Activity<Order, Reservation> = Activity::new("orders", "reserve");
/// Puts it back.
pub const RELEASE: Activity<Reservation, ()> = Activity::new("orders", "release");
/// Tells the customer.
pub const NOTIFY: Activity<Notice, ()> = Activity::new("orders", "notify");
/// What a manager says about a large order.
pub const APPROVAL: Event<Approval> = Event::new("approval");

/// Charges a card.
pub const CHARGE: Activity<Charge, Receipt> = Activity::new("payments", "charge");
/// Gives the money back.
pub const REFUND: Activity<Receipt, ()> = Activity::new("payments", "refund");
/// Books loyalty points.
pub const POINTS: Activity<Points, ()> = Activity::new("payments", "points");

/// Brings a parcel on its way.
pub const SHIP: Workflow<Parcel, Tracking> = Workflow::new("shipping", "ship");
/// Packs it.
pub const PACK: Activity<Parcel, ()> = Activity::new("shipping", "pack");
/// Finds a carrier.
pub const BOOK: Activity<Parcel, Tracking> = Activity::new("shipping", "book");

/// Orders of this sum and more wait for an approval: 1,000.00.
pub const LARGE_CENTS: u64 = 100_000;

/// What a customer orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Its number, the only one of its kind.
    pub id: String,
    /// Who orders.
    pub customer: String,
    /// What is ordered.
    pub items: Vec<Item>,
    /// The number of the card that pays.
    pub card: String,
    /// Where the parcel goes.
    pub country: String,
}

impl Order {
    /// The sum, in cents.
    pub fn cents(&self) -> u64 {
        self.items.iter().map(|item| item.cents).sum()
    }
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// What it is.
    pub sku: String,
    /// What it costs, in cents.
    pub cents: u64,
}

/// Stock that is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Names the reservation.
    pub id: String,
}

/// What is to be charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// For which order.
    pub order: String,
    /// The card's number.
    pub card: String,
    /// How much.
    pub cents: u64,
}

/// A charge that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Names the charge.
    pub id: String,
    /// For which order.
    pub order: String,
    /// How much.
    pub cents: u64,
    /// The attempt that worked, from 1.
    pub attempt: u32,
}

/// Loyalty points to be booked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Points {
    /// Whose.
    pub customer: String,
    /// How many.
    pub points: u64,
}

/// What the customer is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Who is told.
    pub customer: String,
    /// What.
    pub text: String,
}

/// What is to be shipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// For which order.
    pub order: String,
    /// Where it goes.
    pub country: String,
    /// How many things are in it.
    pub items: usize,
}

/// A parcel on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    /// The carrier's number for it.
    pub code: String,
}

/// What a manager says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Yes or no.
    pub is_approved: bool,
    /// Who says so.
    pub by: String,
}

/// How a checkout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The charge.
    pub receipt: Receipt,
    /// The parcel.
    pub tracking: Tracking,
    /// Loyalty points booked.
    pub points: u64,
}

/// Where a checkout is: its custom status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stock is being set aside.
    Reserving,
    /// A manager has to approve.
    WaitingForApproval,
    /// The card is being charged.
    Charging,
    /// The parcel is being brought on its way.
    Shipping,
    /// The customer is told, points are booked.
    Closing,
    /// What was done is being undone.
    Undoing,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Reserving => "orders reserves the stock",
            Stage::WaitingForApproval => "waits for an approval",
            Stage::Charging => "payments charges the card",
            Stage::Shipping => "shipping packs the parcel and finds a carrier",
            Stage::Closing => "orders tells the customer, payments books the points",
            Stage::Undoing => "undoes what was done",
        })
    }
}
