//! What clients of the API's TCP addresses may do: roles, and which certificate has which one.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// A role includes those before it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Nothing at all.
    None,
    /// Looks, and changes nothing.
    #[default]
    ReadOnly,
    /// The everyday changes, and nothing that makes root of a host.
    Operator,
    /// Everything, as root on the host's own socket.
    Admin,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ReadOnly => "read-only",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a certificate says of the one who shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its common names, then its alternative names.
    pub names: Vec<String>,
    /// Its organisational units.
    pub units: Vec<String>,
}

impl Subject {
    /// For people.
    pub fn name(&self) -> &str {
        self.names.first().map_or("(no name)", String::as_str)
    }
}

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    Name(String),
    Unit(String),
}

/// A role that somebody has: `NAME=ROLE` or `OU=UNIT=ROLE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub bearer: Bearer,
    pub role: Role,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is not NAME=ROLE; write \"ci=operator\", or \"OU=staff=read-only\" for all \
                 of a unit; roles are none, read-only, operator and admin"
            )
        };
        let (bearer, role) = text.rsplit_once('=').ok_or_else(bad)?;
        let role = match role {
            "none" => Role::None,
            "read-only" => Role::ReadOnly,
            "operator" => Role::Operator,
            "admin" => Role::Admin,
            _ => return Err(bad()),
        };
        let bearer = match bearer.strip_prefix("OU=") {
            Some(unit) => Bearer::Unit(unit.to_owned()),
            None => Bearer::Name(bearer.to_owned()),
        };
        match &bearer {
            Bearer::Name(name) | Bearer::Unit(name) if name.is_empty() => Err(bad()),
            Bearer::Name(_) | Bearer::Unit(_) => Ok(Self { bearer, role }),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bearer {
            Bearer::Name(name) => write!(f, "{name}={}", self.role),
            Bearer::Unit(unit) => write!(f, "OU={unit}={}", self.role),
        }
    }
}

/// Who has which role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    pub grants: Vec<Grant>,
    /// Of those whom no grant is for.
    pub others: Role,
}

impl Roles {
    /// A name counts before a unit, so that one of a unit may have less or more than the others;
    /// among equals the first one written.
    pub fn of(&self, subject: &Subject) -> Role {
        let named = |grant: &&Grant| matches!(&grant.bearer, Bearer::Name(name) if subject.names.contains(name));
        let in_unit = |grant: &&Grant| matches!(&grant.bearer, Bearer::Unit(unit) if subject.units.contains(unit));
        let grants = || self.grants.iter();
        let found = grants().find(named).or_else(|| grants().find(in_unit));
        found.map_or(self.others, |grant| grant.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_before_a_unit_and_strangers_have_the_rest() {
        let grants = ["OU=staff=read-only", "ann=admin", "lost=none", "ann=none"];
        let roles = Roles {
            grants: grants.map(|text| text.parse().unwrap()).to_vec(),
            others: Role::None,
        };
        for (names, units, role) in [
            (&["ann"][..], &["staff"][..], Role::Admin),
            (&["bob"], &["staff"], Role::ReadOnly),
            (&["lost"], &["staff"], Role::None),
            (&["x", "ann"], &[], Role::Admin),
            (&["staff"], &["ann"], Role::None),
            (&[], &[], Role::None),
        ] {
            let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let subject = Subject {
                names: own(names),
                units: own(units),
            };
            assert_eq!(roles.of(&subject), role, "{subject:?}");
        }
    }

    #[test]
    fn grants_are_read_and_written() {
        for text in ["ci=operator", "OU=a b=admin", "CN=x=none"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for bad in ["ci", "ci=root", "=admin", "OU==admin", ""] {
            assert!(bad.parse::<Grant>().is_err(), "{bad}");
        }
    }
}
