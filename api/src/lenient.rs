//! Go's reading of JSON, for serde: a struct's keys match in any case, `null` leaves the zero
//! value, and errors name the field.

use std::fmt;

use serde::{
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor, value::StringDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};

/// Reads `T` from a parsed document.
pub fn from_value<T: de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

/// What is wrong, and with which field.
#[derive(Debug)]
pub struct Error {
    /// From the outermost field inwards, for example `HostConfig`, `.Memory`, `[1]`.
    path: Vec<String>,
    message: String,
}

impl Error {
    fn within(mut self, step: impl Into<String>) -> Self {
        self.path.insert(0, step.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.path.iter().enumerate() {
            if position > 0 && !step.starts_with('[') {
                f.write_str(".")?;
            }
            f.write_str(step)?;
        }
        if !self.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            message: message.to_string(),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("expected {expected}, found {}", plain(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("expected {expected}, found {}", plain(found)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut allowed: Vec<&str> = expected
            .iter()
            .copied()
            .filter(|value| !value.is_empty())
            .collect();
        allowed.dedup();
        Self::custom(format!("{variant:?} is not one of {}", allowed.join(", ")))
    }
}

fn plain(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(value) => format!("{value:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        other => other.to_string(),
    }
}

struct Lenient(Value);

impl Lenient {
    fn wrong<T>(&self, expected: &dyn de::Expected) -> Result<T, Error> {
        Err(de::Error::invalid_type(
            match &self.0 {
                Value::Null => Unexpected::Unit,
                Value::Bool(value) => Unexpected::Bool(*value),
                Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                    (Some(value), _) => Unexpected::Unsigned(value),
                    (None, Some(value)) => Unexpected::Signed(value),
                    (None, None) => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
                },
                Value::String(text) => Unexpected::Str(text),
                Value::Array(_) => Unexpected::Seq,
                Value::Object(_) => Unexpected::Map,
            },
            expected,
        ))
    }
}

macro_rules! integers {
    ($($method:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match &self.0 {
                Value::Null => visitor.visit_u64(0),
                Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                    (Some(value), _) => visitor.visit_u64(value),
                    (None, Some(value)) => visitor.visit_i64(value),
                    (None, None) => self.wrong(&"an integer"),
                },
                _ => self.wrong(&"an integer"),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items::new(items)),
            Value::Object(map) => visitor.visit_map(Entries::of_map(map)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0 {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => self.wrong(&"true or false"),
        }
    }

    integers! {
        deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64,
        deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_string(String::new()),
            Value::String(text) => visitor.visit_string(text),
            _ => self.wrong(&"a string"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items::new(Vec::new())),
            Value::Array(items) => visitor.visit_seq(Items::new(items)),
            _ => self.wrong(&"a list"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Entries::of_map(Map::new())),
            Value::Object(map) => visitor.visit_map(Entries::of_map(map)),
            _ => self.wrong(&"an object"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Entries::of_map(Map::new())),
            Value::Object(map) => visitor.visit_map(Entries::of_struct(map, fields)),
            _ => self.wrong(&"an object"),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_enum(Word(String::new())),
            Value::String(text) => visitor.visit_enum(Word(text)),
            _ => self.wrong(&"a string"),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    next: usize,
}

impl Items {
    fn new(items: Vec<Value>) -> Self {
        Self {
            items: items.into_iter(),
            next: 0,
        }
    }
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(value) = self.items.next() else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Lenient(value))
            .map(Some)
            .map_err(|e| e.within(format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries {
    entries: std::vec::IntoIter<(String, Value)>,
    current: Option<(String, Value)>,
}

impl Entries {
    fn of_map(map: Map<String, Value>) -> Self {
        Self {
            entries: map.into_iter().collect::<Vec<_>>().into_iter(),
            current: None,
        }
    }

    /// Gives each key the field's own spelling. A key that is spelt exactly wins over one that
    /// differs in case; what is null is left out, so that it reads as not given.
    fn of_struct(map: Map<String, Value>, fields: &'static [&'static str]) -> Self {
        let mut entries: Vec<(String, Value)> = Vec::with_capacity(map.len());
        let mut exact: Vec<bool> = Vec::with_capacity(map.len());
        for (key, value) in map {
            let same = fields.contains(&key.as_str());
            let spelling = if same {
                key
            } else if let Some(field) = fields.iter().find(|f| f.eq_ignore_ascii_case(&key)) {
                (*field).to_owned()
            } else {
                continue;
            };
            match entries.iter().position(|(known, _)| *known == spelling) {
                Some(at) if exact[at] && !same => {}
                Some(at) => {
                    entries[at].1 = value;
                    exact[at] = same;
                }
                None => {
                    entries.push((spelling, value));
                    exact.push(same);
                }
            }
        }
        entries.retain(|(_, value)| !value.is_null());
        Self {
            entries: entries.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        let name: StringDeserializer<Error> = key.clone().into_deserializer();
        self.current = Some((key, value));
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = self.current.take().unwrap_or_default();
        seed.deserialize(Lenient(value))
            .map_err(|error| error.within(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

struct Word(String);

impl<'de> EnumAccess<'de> for Word {
    type Error = Error;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), Error> {
        let name: StringDeserializer<Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, Unit))
    }
}

struct Unit;

impl<'de> VariantAccess<'de> for Unit {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Lenient(Value::Null))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items::new(Vec::new()))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Entries::of_map(Map::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(default, rename_all = "PascalCase")]
    struct Sample {
        name: String,
        count: i64,
        deep: Option<Box<Sample>>,
        flag: bool,
        map: std::collections::BTreeMap<String, String>,
    }

    #[test]
    fn any_case_null_and_precedence() {
        for (value, expected) in [
            (json!({}), Sample::default()),
            (json!(null), Sample::default()),
            (
                json!({"nAmE": "a", "unknown": [1]}),
                Sample {
                    name: "a".into(),
                    ..Sample::default()
                },
            ),
            (
                json!({"name": "b", "Name": "a"}),
                Sample {
                    name: "a".into(),
                    ..Sample::default()
                },
            ),
            (
                json!({"Name": "a", "name": "b"}),
                Sample {
                    name: "a".into(),
                    ..Sample::default()
                },
            ),
            (
                json!({"count": null, "FLAG": true}),
                Sample {
                    flag: true,
                    ..Sample::default()
                },
            ),
            (
                json!({"Map": {"aB": null, "c": "d"}}),
                Sample {
                    map: [("aB".into(), String::new()), ("c".into(), "d".into())].into(),
                    ..Sample::default()
                },
            ),
            (
                json!({"deep": {"COUNT": -3}}),
                Sample {
                    deep: Some(Box::new(Sample {
                        count: -3,
                        ..Sample::default()
                    })),
                    ..Sample::default()
                },
            ),
        ] {
            assert_eq!(
                from_value::<Sample>(value.clone()).unwrap(),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (value, words) in [
            (
                json!({"deep": {"deep": {"count": 1.5}}}),
                "Deep.Deep.Count: expected an integer, found the number 1.5",
            ),
            (
                json!({"flag": "yes"}),
                "Flag: expected true or false, found \"yes\"",
            ),
            (json!("text"), "expected an object, found \"text\""),
        ] {
            assert_eq!(from_value::<Sample>(value).unwrap_err().to_string(), words);
        }
    }
}
