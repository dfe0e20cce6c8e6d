//! The names of all keys and channels. They are data that outlives every release: changing one orphans what is stored under it.
//!
//! A key is `lv:{` tag `}:` part. Redis Cluster puts keys of one tag on one node, and the tag ends at the first `}`, so instance and message IDs,
//! which are free text, are written with `%`, `{` and `}` escaped: one instance is one tag, and no two names give one key. Namespace and app ID
//! need no escaping. Tags of an app's own sets stand where an instance ID may stand too (`due/0` is one); that does no harm, because their parts
//! are others than an instance's.

use std::borrow::Cow;

use crate::model::{AppId, InstanceId, InstanceRef, MessageId, Namespace, RunId};

/// Shards of a due-set: so that one app's timers are not all on one node of a cluster.
pub(super) const DUE_SHARDS: u64 = 4;

/// Channels an app's ends are told on: few enough to subscribe to, many enough that a client hears little of what it does not wait for.
const CHANNELS: u64 = 64;

/// `%`, `{` and `}` as `%25`, `%7B` and `%7D`.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '{', '}']) {
        return text.into();
    }
    text.replace('%', "%25").replace('{', "%7B").replace('}', "%7D").into()
}

/// FNV-1a, 64 bits: every worker of every release must put a name into the same shard and channel.
fn hash(parts: [&[u8]; 2]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The keys of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    namespace: Namespace,
}

impl Keys {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace }
    }

    /// Hash: app to its number of lanes.
    pub(super) fn apps(&self) -> String {
        format!("lv:{{{}}}:apps", self.namespace)
    }

    /// Sorted set: app by when it last gave a sign of life.
    pub(super) fn seen(&self) -> String {
        format!("lv:{{{}}}:seen", self.namespace)
    }

    /// A pattern that all keys of instances match, and few others.
    pub(super) fn instances(&self) -> String {
        format!("lv:{{{}/*", self.namespace)
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn instance(&self, instance: &InstanceRef) -> InstanceKeys {
        let id = escape(instance.id.as_str());
        InstanceKeys {
            prefix: [
                "lv:{",
                self.namespace.as_str(),
                "/",
                instance.app.as_str(),
                "/",
                &id,
                "}",
            ]
            .concat(),
        }
    }

    /// Sorted set of a shard's entries by time, and hash of those payloads that are not empty.
    pub(super) fn due(&self, app: &AppId, shard: u64) -> [String; 2] {
        ["set", "payloads"].map(|part| format!("lv:{{{}/{app}/due/{shard}}}:{part}", self.namespace))
    }

    /// Which shard of a due-set has the member.
    pub(super) fn due_shard(member: &[u8]) -> u64 {
        hash([member, b""]) % DUE_SHARDS
    }

    /// A part of the app's index of instances.
    pub(super) fn index(&self, app: &AppId, part: &str) -> String {
        format!("lv:{{{}/{app}/index}}:{part}", self.namespace)
    }

    /// Sorted set of workers by the time until which they count as live, and hash of what they say of themselves.
    pub(super) fn workers(&self, app: &AppId) -> [String; 2] {
        ["until", "info"].map(|part| format!("lv:{{{}/{app}/workers}}:{part}", self.namespace))
    }

    /// Number: run tokens of an item.
    pub(super) fn tokens(&self, app: &AppId, item: &MessageId) -> String {
        format!("lv:{{{}/{app}/run/{}}}:tokens", self.namespace, escape(item.as_str()))
    }

    /// The channel that tells of the instance's end. (In a cluster, channels belong to no slot.)
    pub(super) fn channel(&self, instance: &InstanceRef) -> String {
        let number = hash([instance.app.as_str().as_bytes(), instance.id.as_str().as_bytes()]) % CHANNELS;
        format!("lv:{{{}/{}}}:ended:{number}", self.namespace, instance.app)
    }
}

/// The keys of one instance.
#[derive(Clone, Debug)]
pub(super) struct InstanceKeys {
    prefix: String,
}

impl InstanceKeys {
    /// Hash: the record, and the turns of the execution.
    pub(super) fn meta(&self) -> String {
        self.part("meta")
    }

    /// List: items that wait. With a time to live while there is no record.
    pub(super) fn inbox(&self) -> String {
        self.part("inbox")
    }

    /// Hash: open claims, and progress.
    pub(super) fn claims(&self) -> String {
        self.part("claims")
    }

    /// Text: what became of a request: `<execution> <run>` of one that was replaced or deleted, or `refused`. It lapses.
    pub(super) fn receipt(&self, request: &str) -> String {
        format!("{}:receipt:{request}", self.prefix)
    }

    /// The outcome of a run that was replaced or deleted. Always with a time to live.
    pub(super) fn past_outcome(&self, run: &str) -> String {
        format!("{}:run:{run}", self.prefix)
    }

    /// The part of this name, as [`instance_part`] gives it.
    pub(super) fn part(&self, part: &str) -> String {
        [&self.prefix, ":", part].concat()
    }

    pub(super) fn past_outcome_of(&self, run: RunId) -> String {
        self.past_outcome(&run.to_string())
    }
}

/// The instance and the part that a key is about; `None` for any other key. Undoes [`escape`].
pub(super) fn instance_part(namespace: &Namespace, key: &str) -> Option<(InstanceRef, String)> {
    let (tag, part) = key.strip_prefix("lv:{")?.split_once("}:")?;
    let within = tag.strip_prefix(namespace.as_str())?.strip_prefix('/')?;
    let (app, id) = within.split_once('/')?;
    let is_part = matches!(part, "meta" | "inbox" | "claims") || part.starts_with("receipt:");
    if !is_part {
        return None;
    }
    let id = id.replace("%7D", "}").replace("%7B", "{").replace("%25", "%");
    let instance = InstanceRef::new(AppId::new(app).ok()?, InstanceId::new(id).ok()?);
    Some((instance, part.to_owned()))
}

/// A member of the index as the ID that it is; `None` for what this release does not write.
pub(super) fn instance_id(member: &[u8]) -> Option<InstanceId> {
    InstanceId::new(std::str::from_utf8(member).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Redis Cluster's rule: between the first `{` and the first `}` after it, if there is something.
    fn tag(key: &str) -> &str {
        let (_, rest) = key.split_once('{').expect("a tag begins");
        let (tag, _) = rest.split_once('}').expect("a tag ends");
        assert!(!tag.is_empty());
        tag
    }

    fn instance(app: &str, id: &str) -> InstanceRef {
        InstanceRef::new(AppId::new(app).unwrap(), InstanceId::new(id).unwrap())
    }

    #[test]
    fn an_instance_has_one_tag_whatever_its_id() {
        let keys = Keys::new(Namespace::new("n").unwrap());
        let ids = [
            "a",
            "a}",
            "{a}",
            "a%7D",
            "}:meta",
            "a/b:c d",
            "ünïcödé",
            "a}:receipt:x",
            "due/0",
            "%",
        ];
        let (mut tags, mut all) = (HashSet::new(), HashSet::new());
        for app in ["a", "b"] {
            for id in ids {
                let of = keys.instance(&instance(app, id));
                let names = [
                    of.meta(),
                    of.inbox(),
                    of.claims(),
                    of.receipt("x}{"),
                    of.past_outcome("0"),
                ];
                assert!(names.iter().all(|name| tag(name) == tag(&names[0])), "{names:?}");
                assert!(tags.insert(tag(&names[0]).to_owned()), "{id} has a tag of its own");
                let namespace = Namespace::new("n").unwrap();
                let read = instance_part(&namespace, &of.receipt("x}{"));
                assert_eq!(read, Some((instance(app, id), "receipt:x}{".to_owned())));
                assert_eq!(instance_part(&namespace, &of.past_outcome("0")), None);
                all.extend(names);
            }
        }
        assert_eq!(all.len(), 2 * ids.len() * 5, "no two names give one key");
    }

    proptest::proptest! {
        #![proptest_config(crate::backend::many_inputs())]

        /// Any two instances, however much alike.
        #[test]
        fn no_two_instances_share_a_key_or_a_tag(
            apps in proptest::array::uniform2("[ab]|[A-Za-z0-9][A-Za-z0-9_-]{0,62}"),
            ids in proptest::array::uniform2("[a%/:{}7DBd25 ]{1,8}|[^\\p{Cc}]{1,40}"),
            parts in proptest::array::uniform2("[a:{}]{1,4}|[^\\p{Cc}]{1,20}"),
        ) {
            proptest::prop_assume!(apps.iter().all(|app| app != "amq"));
            let keys = Keys::new(Namespace::new("n").unwrap());
            let [one, other] = [0, 1].map(|at| {
                let of = keys.instance(&instance(&apps[at], &ids[at]));
                let receipt = of.receipt(&parts[at]);
                [of.meta(), of.inbox(), of.claims(), of.past_outcome("0"), receipt]
            });
            for names in [&one, &other] {
                assert!(names.iter().all(|name| tag(name) == tag(&names[0])), "{names:?}");
                assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
            }
            let is_same = (&apps[0], &ids[0]) == (&apps[1], &ids[1]);
            assert_eq!(tag(&one[0]) == tag(&other[0]), is_same, "{one:?} {other:?}");
            if !is_same {
                assert!(one.iter().all(|name| !other.contains(name)), "{one:?} {other:?}");
            }
            // Neither does one of them write into an app's own sets.
            let app = AppId::new(&apps[0]).unwrap();
            let mut own = vec![keys.apps(), keys.seen(), keys.index(&app, "running")];
            own.extend(keys.due(&app, 0).into_iter().chain(keys.workers(&app)));
            own.push(keys.tokens(&app, &MessageId::new(&parts[0]).unwrap()));
            assert!(one.iter().all(|name| !own.contains(name)), "{one:?} {own:?}");
        }

        #[test]
        fn any_member_of_an_index_is_an_id_or_none(member in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            if let Some(id) = instance_id(&member) {
                assert_eq!(id.as_str().as_bytes(), member);
            }
        }
    }

    #[test]
    fn names_do_not_change_between_releases() {
        let keys = Keys::new(Namespace::new("n").unwrap());
        let app = AppId::new("a").unwrap();
        assert_eq!(
            keys.instance(&instance("a", "order {1}")).meta(),
            "lv:{n/a/order %7B1%7D}:meta"
        );
        assert_eq!(keys.due(&app, 3), ["lv:{n/a/due/3}:set", "lv:{n/a/due/3}:payloads"]);
        assert_eq!(keys.channel(&instance("a", "b")), "lv:{n/a}:ended:42");
        assert_eq!(Keys::due_shard(b"torder-1"), 3);
        assert_eq!(keys.index(&app, "running"), "lv:{n/a/index}:running");
        assert_eq!(keys.apps(), "lv:{n}:apps");
    }
}
