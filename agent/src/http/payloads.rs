//! `/secrets…` and `/configs…`

use api::{
    Filters, Query,
    payload::{CreateResponse, PayloadView, SpecView},
};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use model::{
    Payload, PayloadKind,
    control::{Answer as Reply, Verb},
};

use super::{Answer, AppState, Asked, Given, done, json, json_with, nodes::empty, unexpected};

pub(super) fn routes() -> Router<AppState> {
    of_kind("secrets", PayloadKind::Secret).merge(of_kind("configs", PayloadKind::Config))
}

fn of_kind(path: &str, kind: PayloadKind) -> Router<AppState> {
    Router::new()
        .route(
            &format!("/{path}"),
            get(move |State(state): State<AppState>, Asked(query): Asked| list(state, kind, query)),
        )
        .route(
            &format!("/{path}/create"),
            post(
                move |State(state): State<AppState>, Given(spec): Given<SpecView>| {
                    create(state, kind, spec)
                },
            ),
        )
        .route(
            &format!("/{path}/{{id}}"),
            get(
                move |State(state): State<AppState>, Path(id): Path<String>| {
                    inspect(state, kind, id)
                },
            )
            .delete(
                move |State(state): State<AppState>, Path(id): Path<String>| {
                    remove(state, kind, id)
                },
            ),
        )
        .route(
            &format!("/{path}/{{id}}/update"),
            post(
                move |State(state): State<AppState>,
                      Path(id): Path<String>,
                      Asked(query): Asked,
                      Given(spec): Given<SpecView>| {
                    update(state, kind, id, query, spec)
                },
            ),
        )
}

const FILTERS: &[&str] = &["id", "label", "name", "names"];

async fn list(state: AppState, kind: PayloadKind, query: Query) -> Answer {
    let filters = query.filters(FILTERS)?;
    match state.call(Verb::PayloadList { kind }).await? {
        Reply::Payloads(payloads) => {
            let views: Vec<PayloadView> = payloads
                .iter()
                .filter(|payload| fits(payload, &filters))
                .map(PayloadView::from)
                .collect();
            Ok(json(&views))
        }
        other => Err(unexpected("secret or config list", &other).into()),
    }
}

/// Names and ids are prefixes, as in Docker; `names` are whole.
fn fits(payload: &Payload, filters: &Filters) -> bool {
    let spec = &payload.spec;
    filters.prefix("id", payload.id.as_str())
        && filters.prefix("name", &spec.name)
        && filters.exact("names", &spec.name)
        && filters.labels("label", |key| spec.labels.get(key).map(String::as_str))
}

async fn create(state: AppState, kind: PayloadKind, spec: SpecView) -> Answer {
    state.manager_only().await?;
    let spec = Box::new(spec.into_new(kind)?);
    match state.call(Verb::PayloadCreate { kind, spec }).await? {
        Reply::Payload(payload) => {
            let created = CreateResponse {
                id: payload.id.to_string(),
            };
            Ok(json_with(StatusCode::CREATED, &created))
        }
        other => Err(unexpected("secret or config create", &other).into()),
    }
}

async fn inspect(state: AppState, kind: PayloadKind, reference: String) -> Answer {
    match state.call(Verb::PayloadInspect { kind, reference }).await? {
        Reply::Payload(payload) => Ok(json(&PayloadView::from(&*payload))),
        other => Err(unexpected("secret or config inspect", &other).into()),
    }
}

async fn update(
    state: AppState,
    kind: PayloadKind,
    reference: String,
    query: Query,
    spec: SpecView,
) -> Answer {
    state.manager_only().await?;
    let verb = Verb::PayloadUpdate {
        kind,
        reference,
        version: query.version()?,
        spec: Box::new(spec.into_model(kind)?),
    };
    state.call(verb).await?;
    Ok(empty())
}

async fn remove(state: AppState, kind: PayloadKind, reference: String) -> Answer {
    state.call(Verb::PayloadRemove { kind, reference }).await?;
    Ok(done())
}

#[cfg(test)]
mod tests {
    use model::{Meta, PayloadSpec};

    use super::*;

    #[test]
    fn filters_choose_secrets() {
        let payload = Payload {
            id: "abc".into(),
            meta: Meta::default(),
            kind: PayloadKind::Secret,
            spec: PayloadSpec {
                name: "key.1".into(),
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..PayloadSpec::default()
            },
        };
        for (text, expected) in [
            ("", true),
            (r#"{"name":{"key":true}}"#, true),
            (r#"{"names":["key"]}"#, false),
            (r#"{"names":["key.1","x"]}"#, true),
            (r#"{"id":["ab"]}"#, true),
            (r#"{"id":["b"]}"#, false),
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
        ] {
            let filters = Filters::parse(text, FILTERS).unwrap();
            assert_eq!(fits(&payload, &filters), expected, "{text}");
        }
        assert!(Filters::parse(r#"{"colour":["a"]}"#, FILTERS).is_err());
    }
}
