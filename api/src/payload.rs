//! Secrets and configs: `/secrets…`, `/configs…`.

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use model::{Payload, PayloadKind, PayloadSpec, Refusal, payload::Content};
use serde::{Deserialize, Serialize};

use crate::{node::ObjectVersion, omit, service::DriverView, timestamp};

/// What `GET /secrets/{x}` and `GET /configs/{x}` answer, and each entry of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PayloadView {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: String,
    pub updated_at: String,
    pub spec: SpecView,
}

/// What create and update take.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpecView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Base64; never given back for secrets.
    #[serde(skip_serializing_if = "omit::empty")]
    pub data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<DriverView>,
}

impl std::fmt::Debug for SpecView {
    /// Without the data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpecView")
            .field("name", &self.name)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// Answered with 201.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    #[serde(rename = "ID")]
    pub id: String,
}

impl From<&Payload> for PayloadView {
    fn from(payload: &Payload) -> Self {
        let spec = &payload.spec;
        Self {
            id: payload.id.to_string(),
            version: ObjectVersion {
                index: payload.meta.version,
            },
            created_at: timestamp::rfc3339(payload.meta.created_at),
            updated_at: timestamp::rfc3339(payload.meta.updated_at),
            spec: SpecView {
                name: spec.name.clone(),
                labels: spec.labels.clone(),
                data: match payload.kind {
                    PayloadKind::Secret => String::new(),
                    PayloadKind::Config => STANDARD.encode(&spec.data.0),
                },
                driver: spec.driver.as_ref().map(DriverView::from),
                templating: spec.templating.as_ref().map(DriverView::from),
            },
        }
    }
}

impl SpecView {
    /// A new secret or config: checked for size and for what is not there.
    pub fn into_new(self, kind: PayloadKind) -> Result<PayloadSpec, Refusal> {
        let spec = self.into_model(kind)?;
        let size = spec.data.0.len();
        if size == 0 || size >= kind.limit() {
            return Err(Refusal::invalid(format!(
                "{} {}: its data is {size} bytes; it must be larger than 0 and less than {} bytes",
                kind.as_str(),
                spec.name,
                kind.limit()
            )));
        }
        Ok(spec)
    }

    /// The spec of an update, which may come without the data.
    pub fn into_model(self, kind: PayloadKind) -> Result<PayloadSpec, Refusal> {
        let what = format!("{} {}", kind.as_str(), self.name);
        if let Some(driver) = self.driver.filter(|driver| !driver.name.is_empty()) {
            return Err(Refusal::not_implemented(format!(
                "{what}: driver {:?} is a plugin, and there are none; leave the driver out",
                driver.name
            )));
        }
        let templating = self.templating.filter(|driver| !driver.name.is_empty());
        if let Some(driver) = &templating
            && driver.name != "golang"
        {
            return Err(Refusal::invalid(format!(
                "{what}: template driver {:?} is not known; only golang is",
                driver.name
            )));
        }
        // Docker's Python client uses the alphabet for addresses.
        let data = STANDARD
            .decode(&self.data)
            .or_else(|error| URL_SAFE.decode(&self.data).map_err(|_| error))
            .map_err(|error| Refusal::invalid(format!("{what}: Data is not base64: {error}")))?;
        Ok(PayloadSpec {
            name: self.name,
            labels: self.labels,
            data: Content(data),
            driver: None,
            templating: templating.map(DriverView::into_model),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    fn read(text: &str) -> SpecView {
        body::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn data_comes_in_and_only_a_configs_goes_out() {
        let spec = read(r#"{"name":"key","LABELS":null,"data":"c2VjcmV0","Driver":null}"#);
        assert!(!format!("{spec:?}").contains("c2VjcmV0"));
        for (kind, shown) in [(PayloadKind::Secret, ""), (PayloadKind::Config, "c2VjcmV0")] {
            let payload = Payload {
                id: "idididididididididididid".into(),
                meta: model::Meta::default(),
                kind,
                spec: spec.clone().into_new(kind).unwrap(),
            };
            assert_eq!(payload.spec.data.0, b"secret");
            let view = PayloadView::from(&payload);
            assert_eq!(view.spec.data, shown);
            let text = serde_json::to_string(&view).unwrap();
            assert!(text.contains("\"Labels\":{}"), "{text}");
            assert!(!text.contains("null"), "{text}");
            assert_eq!(text.contains("Data"), kind == PayloadKind::Config);
        }
    }

    #[test]
    fn wrong_ones_are_refused() {
        let large = STANDARD.encode(vec![0; 500 * 1024]);
        for (body, status, words) in [
            (r#"{"Name":"a"}"#.to_owned(), 400, "larger than 0"),
            (
                format!(r#"{{"Name":"a","Data":"{large}"}}"#),
                400,
                "less than 512000",
            ),
            (r#"{"Name":"a","Data":"%"}"#.to_owned(), 400, "not base64"),
            (
                r#"{"Name":"a","Data":"YQ==","Driver":{"Name":"vault"}}"#.to_owned(),
                501,
                "vault",
            ),
            (
                r#"{"Name":"a","Data":"YQ==","Templating":{"Name":"jinja"}}"#.to_owned(),
                400,
                "golang",
            ),
        ] {
            let refusal = read(&body).into_new(PayloadKind::Secret).unwrap_err();
            assert_eq!(refusal.kind.status(), status, "{refusal}");
            assert!(refusal.message.contains(words), "{refusal}");
        }
        let spec = read(r#"{"Name":"a","Data":"_-8=","Templating":{"Name":"golang"}}"#);
        assert_eq!(
            spec.into_new(PayloadKind::Config).unwrap().data.0,
            [0xff, 0xef]
        );
    }
}
