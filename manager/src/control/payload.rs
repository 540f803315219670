//! Secrets and configs.

use model::{Meta, Payload, PayloadKind, PayloadSpec, Refusal, SecretId, payload::Content};

use super::{in_sequence, new_id};
use crate::store::{Tables, Transaction};

/// Checks and stores; content cannot be changed afterwards.
pub fn payload_create(
    tx: &mut Transaction,
    kind: PayloadKind,
    spec: PayloadSpec,
) -> Result<Payload, Refusal> {
    let what = kind.as_str();
    check_name(what, &spec.name)?;
    if let Some(driver) = spec.driver.as_ref().filter(|driver| !driver.name.is_empty()) {
        return Err(Refusal::not_implemented(format!(
            "{what} driver {:?} is not there; leave --driver out",
            driver.name
        )));
    }
    let templating = spec.templating.as_ref().map_or("", |driver| &driver.name);
    if !matches!(templating, "" | "golang") {
        return Err(Refusal::invalid(format!(
            "template driver {templating:?} is not known; use golang or leave it out"
        )));
    }
    let length = spec.data.0.len();
    if !(1..kind.limit()).contains(&length) {
        return Err(Refusal::invalid(format!(
            "{what} data must be larger than 0 and less than {} bytes; {} has {length}",
            kind.limit(),
            spec.name
        )));
    }
    if tx.tables().work().payload_named(kind, &spec.name).is_some() {
        return Err(Refusal::conflict(format!(
            "{what} {} already exists; its content cannot be changed, so choose another name",
            spec.name
        )));
    }
    let payload = Payload {
        id: new_id(),
        meta: Meta::default(),
        kind,
        spec,
    };
    tx.set_payload(payload.clone());
    Ok(payload)
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fine = name.len() <= 64
        && name.bytes().all(inside)
        && edge(name.bytes().next())
        && edge(name.bytes().last());
    if fine {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "invalid {what} name {name:?}, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
    )))
}

/// By full id, exact name, or unique id prefix.
pub fn find_payload<'a>(
    tables: &'a Tables,
    kind: PayloadKind,
    reference: &str,
) -> Result<&'a Payload, Refusal> {
    let (work, what) = (tables.work(), kind.as_str());
    let by_id = work.payload(&reference.into());
    if let Some(payload) = by_id
        .filter(|payload| payload.kind == kind)
        .or_else(|| work.payload_named(kind, reference))
    {
        return Ok(payload);
    }
    let mut found = work
        .payloads(kind)
        .filter(|payload| !reference.is_empty() && payload.id.as_str().starts_with(reference));
    match (found.next(), found.next()) {
        (Some(payload), None) => Ok(payload),
        (None, _) => Err(Refusal::not_found(format!("{what} {reference} not found"))),
        (Some(_), Some(_)) => Err(Refusal::invalid(format!(
            "{what} {reference} is ambiguous: several ids begin so; give more of it"
        ))),
    }
}

/// What may be shown: a secret without its content.
pub fn shown(payload: &Payload) -> Payload {
    let mut payload = payload.clone();
    if payload.kind == PayloadKind::Secret {
        payload.spec.data = Content::default();
    }
    payload
}

/// Changes the labels; anything else stands for ever.
pub fn payload_update(
    tx: &mut Transaction,
    kind: PayloadKind,
    reference: &str,
    version: u64,
    spec: PayloadSpec,
) -> Result<(), Refusal> {
    let mut payload = find_payload(tx.tables(), kind, reference)?.clone();
    in_sequence(version, payload.meta.version)?;
    let old = &payload.spec;
    let same = old.name == spec.name
        && old.templating == spec.templating
        && (spec.data.0.is_empty() || spec.data == old.data);
    if !same {
        return Err(Refusal::invalid(format!(
            "only updates to Labels are allowed; create a new {} instead",
            kind.as_str()
        )));
    }
    payload.spec.labels = spec.labels;
    tx.set_payload(payload);
    Ok(())
}

/// Refused while services use it, with them named.
pub fn payload_remove(
    tx: &mut Transaction,
    kind: PayloadKind,
    reference: &str,
) -> Result<SecretId, Refusal> {
    let payload = find_payload(tx.tables(), kind, reference)?.clone();
    let users: Vec<&str> = tx
        .tables()
        .work()
        .services()
        .filter(|service| {
            let container = &service.spec.task.container;
            let mut all = container.secrets.iter().chain(&container.configs);
            all.any(|used| used.id == payload.id)
        })
        .map(|service| service.spec.name.as_str())
        .collect();
    if !users.is_empty() {
        return Err(Refusal::invalid(format!(
            "{} '{}' is in use by the following service{}: {}; update or remove {} first",
            kind.as_str(),
            payload.spec.name,
            if users.len() == 1 { "" } else { "s" },
            users.join(", "),
            if users.len() == 1 { "it" } else { "them" },
        )));
    }
    tx.remove_payload(&payload.id);
    Ok(payload.id)
}
