//! Parts that many objects of a list have in common.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};
use serde_json::value::{RawValue, to_raw_value};

/// A part of many objects. Its JSON is made once and copied then, so that a list of thousands costs little
/// more than its text.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<Kept<T>>);

#[derive(Debug, Default)]
struct Kept<T> {
    value: T,
    text: OnceLock<Box<RawValue>>,
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(Kept {
            value,
            text: OnceLock::new(),
        }))
    }

    /// Whether both are one and the same part, not only equal ones.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = self.0.text.get() {
            return text.serialize(serializer);
        }
        let text = to_raw_value(&self.0.value).map_err(S::Error::custom)?;
        self.0.text.get_or_init(|| text).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    static WRITTEN: AtomicUsize = AtomicUsize::new(0);

    #[derive(Debug, Default, PartialEq)]
    struct Part(&'static str);

    impl Serialize for Part {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            WRITTEN.fetch_add(1, Relaxed);
            serializer.serialize_str(self.0)
        }
    }

    #[test]
    fn a_part_is_written_once_and_reads_as_if_it_stood_there() {
        let part = Shared::new(Part("a\"b"));
        let list = [part.clone(), part.clone(), part];
        assert_eq!(
            serde_json::to_string(&list).unwrap(),
            r#"["a\"b","a\"b","a\"b"]"#
        );
        assert_eq!(WRITTEN.load(Relaxed), 1);
        assert_eq!(serde_json::to_value(&list[0]).unwrap(), "a\"b");
        let read: Shared<String> = serde_json::from_str(r#""x""#).unwrap();
        assert_eq!(*read, "x");
    }
}
