//! Starts that any AMQP client may publish: `RawStart::decode`.

use fastrand::Rng;
use leveret::wire::{DecodeError, RawStart};
use leveret::{InstanceId, MessageId};

use super::bytes;
use super::messages::{fits, schema};
use super::runner::{Fate, play};
use super::tree::Tree;

fn valid(rng: &mut Rng) -> Tree {
    let text = |text: &str| Tree::Text(text.into());
    let mut fields = vec![
        (text("workflow"), text("checkout")),
        (text("instance_id"), text("order-1")),
        (
            text("input"),
            Tree::Map(vec![
                (text("n"), Tree::Float(1.5)),
                (text("list"), Tree::List(vec![Tree::Nil, text("é")])),
            ]),
        ),
        (text("start_at"), Tree::Number(1_790_000_000_000)),
        (text("tags"), Tree::Map(vec![(text("colour"), text("red"))])),
    ];
    if rng.bool() {
        fields.remove(rng.usize(1..fields.len()));
    }
    Tree::Map(fields)
}

fn body(rng: &mut Rng, is_packed: bool) -> Vec<u8> {
    if rng.u8(0..8) == 0 {
        return bytes::random(rng);
    }
    let mut tree = valid(rng);
    if rng.u8(0..3) > 0 {
        tree.change(rng);
    }
    let mut body = if is_packed {
        tree.pack()
    } else {
        tree.json()
            .unwrap_or_else(|| valid(rng).json().expect("a valid one is JSON"))
    };
    if rng.u8(0..3) == 0 {
        bytes::change(rng, &mut body);
    }
    body
}

#[test]
fn raw_starts() {
    let validator = schema("raw-start.json");
    play("raw_starts", |rng| {
        let content_type = [
            None,
            Some("application/json"),
            Some("application/msgpack"),
            Some(""),
            Some("text/plain"),
        ][rng.usize(..5)];
        let body = body(rng, content_type == Some("application/msgpack"));
        let message_id = match rng.u8(0..4) {
            0 => None,
            1 => Some("m-1".to_owned()),
            _ => Some(bytes::text(rng)),
        };
        let (start, instance, request) = match RawStart::decode(&body, content_type, message_id.as_deref()) {
            Ok(taken) => taken,
            Err(problem) => {
                let text = problem.to_string();
                match problem {
                    DecodeError::Field { field, .. } => assert!(text.contains(&format!("`{field}`")), "{text}"),
                    DecodeError::NotAStart(_) => assert!(text.len() > "not a start message: ".len(), "{text}"),
                    other => panic!("{other}"),
                }
                assert!(
                    text.len() < 2200,
                    "no message repeats all of a long value: {} bytes",
                    text.len()
                );
                return Fate::Refused;
            }
        };
        // What a client may choose, a raw start may, and no more.
        assert!(InstanceId::chosen(instance.as_str()).is_ok() && MessageId::new(request.as_str()).is_ok());
        assert_eq!(start.instance_id.as_ref(), Some(&instance));
        assert!((1..=255).contains(&start.workflow.len()));
        assert!(start.tags.len() <= 32, "{} tags", start.tags.len());
        assert!(
            start
                .tags
                .iter()
                .all(|(key, value)| !key.is_empty() && key.len() <= 255 && value.len() <= 255)
        );
        fits(&start, &validator);
        let written = serde_json::to_vec(&start).unwrap();
        let (again, same, _) = RawStart::decode(&written, None, None).expect("what is written can be read");
        assert_eq!((again, same), (start, instance));
        Fate::Taken
    });
}
