//! A message as a tree, whatever it says: changes to it give what another sender, or another release, might have written.

use std::fmt;

use fastrand::Rng;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bytes::text;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Nil,
    Bool(bool),
    Number(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

impl Tree {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        rmp_serde::from_slice(bytes).expect("what is valid is MessagePack")
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a tree can be written")
    }

    /// As JSON, if it has that form: bytes and maps by other things than text have none.
    pub(crate) fn json(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// One to three changes, each at a node of its own.
    pub(crate) fn change(&mut self, rng: &mut Rng) {
        for _ in 0..rng.u32(1..4) {
            let mut at = rng.usize(..self.count());
            self.reach(&mut at, &mut |node| node.change_here(rng));
        }
    }

    fn count(&self) -> usize {
        1 + match self {
            Tree::List(list) => list.iter().map(Tree::count).sum(),
            Tree::Map(map) => map.iter().map(|(_, value)| value.count()).sum(),
            _ => 0,
        }
    }

    /// Does something at the node of this number.
    fn reach(&mut self, at: &mut usize, act: &mut impl FnMut(&mut Tree)) -> bool {
        if *at == 0 {
            act(self);
            return true;
        }
        *at -= 1;
        match self {
            Tree::List(list) => list.iter_mut().any(|node| node.reach(at, act)),
            Tree::Map(map) => map.iter_mut().any(|(_, node)| node.reach(at, act)),
            _ => false,
        }
    }

    fn change_here(&mut self, rng: &mut Rng) {
        match self {
            Tree::Map(map) if !map.is_empty() && rng.u8(0..4) > 0 => {
                let at = rng.usize(..map.len());
                match rng.u8(0..6) {
                    0 => drop(map.remove(at)),
                    1 => map.push(map[at].clone()),
                    2 => map[at].0 = Tree::Text(text(rng)),
                    3 => map.push((Tree::Text(text(rng)), odd(rng))),
                    4 => rng.shuffle(map),
                    _ => map[at].0 = odd(rng),
                }
            }
            Tree::List(list) if !list.is_empty() && rng.u8(0..4) > 0 => {
                let at = rng.usize(..list.len());
                match rng.u8(0..4) {
                    0 => drop(list.remove(at)),
                    1 => list.push(list[at].clone()),
                    2 => list.clear(),
                    _ => list[at] = odd(rng),
                }
            }
            Tree::Number(number) if rng.bool() => *number = number.wrapping_add(rng.u64(..) >> rng.u32(0..64)),
            Tree::Text(old) if rng.bool() => old.push_str(&text(rng)),
            Tree::Bytes(bytes) if rng.u8(0..4) > 0 => super::bytes::change(rng, bytes),
            // A map as the list of its values, as array mode would have it.
            Tree::Map(map) if rng.bool() => *self = Tree::List(map.drain(..).map(|(_, value)| value).collect()),
            other => *other = odd(rng),
        }
    }
}

/// A value that is at the end of some range, or nobody's.
pub(crate) fn odd(rng: &mut Rng) -> Tree {
    match rng.u8(0..17) {
        0 => Tree::Nil,
        1 => Tree::Bool(rng.bool()),
        2 => Tree::Number(0),
        3 => Tree::Number(rng.u64(..)),
        4 => Tree::Number(u64::MAX),
        5 => Tree::Number(u64::from(u32::MAX) + u64::from(rng.bool())),
        6 => Tree::Negative(-1),
        7 => Tree::Negative(i64::MIN),
        8 => Tree::Float(1.5),
        9 => Tree::Float([f64::NAN, f64::INFINITY, -0.0, 1e300][rng.usize(..4)]),
        10 => Tree::Text(text(rng)),
        11 => Tree::Text(String::new()),
        12 => Tree::Bytes(super::bytes::random(rng)),
        13 => Tree::Bytes(rng.u128(..).to_be_bytes().to_vec()),
        14 => Tree::List(Vec::new()),
        15 => Tree::Map(Vec::new()),
        _ => (0..1 << rng.u32(0..9)).fold(Tree::Nil, |inner, _| Tree::List(vec![inner])),
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Nil => to.serialize_unit(),
            Tree::Bool(value) => to.serialize_bool(*value),
            Tree::Number(value) => to.serialize_u64(*value),
            Tree::Negative(value) => to.serialize_i64(*value),
            Tree::Float(value) => to.serialize_f64(*value),
            Tree::Text(value) => to.serialize_str(value),
            Tree::Bytes(value) => to.serialize_bytes(value),
            Tree::List(list) => {
                let mut seq = to.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|node| seq.serialize_element(node))?;
                seq.end()
            }
            Tree::Map(pairs) => {
                let mut map = to.serialize_map(Some(pairs.len()))?;
                pairs
                    .iter()
                    .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Nil)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Number(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(u64::try_from(value).map_or(Tree::Negative(value), Tree::Number))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Text(value.to_owned()))
            }
            fn visit_bytes<E>(self, value: &[u8]) -> Result<Tree, E> {
                Ok(Tree::Bytes(value.to_vec()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = list.next_element()? {
                    nodes.push(node);
                }
                Ok(Tree::List(nodes))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Tree::Map(pairs))
            }
        }
        from.deserialize_any(Any)
    }
}
