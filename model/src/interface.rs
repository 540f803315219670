//! Names of network interfaces.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a name: the kernel's room for it is one more.
const LONGEST: usize = 15;

/// A name that an interface of a host can have. Whether one has it is another matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName {
    bytes: [u8; LONGEST],
    length: u8,
}

impl InterfaceName {
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length));
        bytes
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    /// By the kernel's own rule.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |one: char| matches!(one, '/' | ':' | '\0') || one.is_whitespace();
        if !(1..=LONGEST).contains(&text.len()) || matches!(text, "." | "..") || text.contains(bad)
        {
            return Err(format!(
                "an interface's name has 1 to {LONGEST} bytes, without spaces, '/' and ':'"
            ));
        }
        let mut bytes = [0; LONGEST];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(Self {
            bytes,
            length: u8::try_from(text.len()).unwrap_or_default(),
        })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for text in ["eth1", "e", "enp0s31f6", "br-0123456789ab", "wlan0.7", "ü"] {
            let name: InterfaceName = text.parse().expect(text);
            assert_eq!((name.as_str(), name.to_string()), (text, text.to_owned()));
        }
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "a:1",
            "a b",
            "a\tb",
            "a\0",
            "sixteen-bytes-ab",
        ] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text:?}");
        }
    }
}
