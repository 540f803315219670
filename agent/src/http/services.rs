//! `/services…`

use api::{
    Filters,
    service::{
        CreateResponse, DryRunView, RebalanceResponse, ServiceView, SpecView, UpdateResponse,
        mode_word,
    },
};
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use model::{
    Refusal, Service, ServiceSpec,
    control::{Answer as Reply, Credentials, Verb},
    service::ServiceStatus,
};

use runtime::images::Reference;

use super::{
    Answer, AppState, Asked, Given, access::Caller, images, json, json_with, networks,
    nodes::empty, unexpected,
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/services", get(list))
        .route("/services/create", post(create))
        .route("/services/{id}", get(inspect).delete(remove))
        .route("/services/{id}/update", post(update))
        .route("/services/{id}/rebalance", post(rebalance))
}

const FILTERS: &[&str] = &["id", "label", "mode", "name", "runtime"];

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = query.filters(FILTERS)?;
    filters.check(
        "mode",
        &["replicated", "global", "replicated-job", "global-job"],
    )?;
    match state.call(Verb::ServiceList).await? {
        Reply::Services(services) => Ok(json(&views(&services, &filters, query.flag("status")))),
        other => Err(unexpected("service list", &other).into()),
    }
}

fn views(
    services: &[(Service, ServiceStatus)],
    filters: &Filters,
    with_status: bool,
) -> Vec<ServiceView> {
    let view = |(service, status): &(Service, ServiceStatus)| {
        let view = ServiceView::from(service);
        if with_status {
            view.with_status(*status)
        } else {
            view
        }
    };
    services
        .iter()
        .filter(|(service, _)| fits(service, filters))
        .map(view)
        .collect()
}

/// Names and ids are prefixes, as in Docker.
fn fits(service: &Service, filters: &Filters) -> bool {
    let spec = &service.spec;
    filters.prefix("id", service.id.as_str())
        && filters.prefix("name", &spec.name)
        && filters.exact("mode", mode_word(spec.mode))
        && filters.any("runtime", is_container)
        && filters.labels("label", |key| spec.labels.get(key).map(String::as_str))
}

/// The only runtime there is.
pub(super) fn is_container(runtime: &str) -> bool {
    matches!(runtime, "" | "container")
}

/// By full id, exact name, or unique id prefix.
pub(super) async fn find(state: &AppState, reference: &str) -> Result<Service, Refusal> {
    let verb = Verb::ServiceInspect {
        reference: reference.to_owned(),
    };
    match state.call(verb).await? {
        Reply::Service(service) => Ok(*service),
        other => Err(unexpected("service inspect", &other)),
    }
}

async fn inspect(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let mut view = ServiceView::from(&find(&state, &id).await?);
    if query.flag("insertDefaults") {
        view = view.with_defaults();
    }
    Ok(json(&view))
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Asked(query): Asked,
    headers: HeaderMap,
    Given(spec): Given<SpecView>,
) -> Answer {
    state.manager_only().await?;
    let mut spec = Box::new(asked_for(spec, &headers)?);
    if spec.name.is_empty() {
        spec.name = runtime::engine::random_name();
    }
    caller.may_serve(&spec)?;
    let networks = targets(&spec);
    let known = |refusal| networks::only_here(&state, &networks, refusal);
    if query.flag("dryRun") {
        let run = state.call(Verb::ServiceDryRun { spec }).await;
        return match run.map_err(known)? {
            Reply::DryRun(run) => Ok(json(&DryRunView::from(&*run))),
            other => Err(unexpected("service dry run", &other).into()),
        };
    }
    let written = state.call(Verb::ServiceCreate { spec }).await;
    match written.map_err(known)? {
        Reply::ServiceWritten { id, warnings } => {
            let created = CreateResponse {
                id: id.to_string(),
                warnings,
            };
            Ok(json_with(StatusCode::CREATED, &created))
        }
        other => Err(unexpected("service create", &other).into()),
    }
}

/// The networks that it names.
fn targets(spec: &ServiceSpec) -> Vec<String> {
    let networks = spec.task.networks.iter();
    networks.map(|one| one.target.clone()).collect()
}

/// The wish of a request. An image's name that no host could pull is refused here: no task
/// would say it better.
fn asked_for(spec: SpecView, headers: &HeaderMap) -> Result<ServiceSpec, Refusal> {
    let spec = spec.into_model()?;
    spec.task.container.image.parse::<Reference>()?;
    with_credentials(spec, headers)
}

/// The spec keeps what the client wants its nodes to log in to the registry with.
fn with_credentials(mut spec: ServiceSpec, headers: &HeaderMap) -> Result<ServiceSpec, Refusal> {
    if images::credentials(headers)?.is_some()
        && let Some(text) = headers
            .get("x-registry-auth")
            .and_then(|text| text.to_str().ok())
    {
        text.clone_into(&mut spec.task.container.registry_auth);
    }
    Ok(spec)
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked,
    headers: HeaderMap,
    Given(spec): Given<SpecView>,
) -> Answer {
    state.manager_only().await?;
    let version = query.version()?;
    let credentials = match query.text("registryAuthFrom").unwrap_or("spec") {
        "spec" => Credentials::Spec,
        "previous-spec" => Credentials::PreviousSpec,
        other => {
            return Err(Refusal::invalid(format!(
                "parameter registryAuthFrom: {other:?} is not one of spec, previous-spec"
            ))
            .into());
        }
    };
    let rollback = match query.text("rollback").unwrap_or("none") {
        "none" => false,
        "previous" => true,
        other => {
            return Err(Refusal::invalid(format!(
                "parameter rollback: {other:?} is not known; only previous is"
            ))
            .into());
        }
    };
    let spec = Box::new(asked_for(spec, &headers)?);
    caller.may_serve(&spec)?;
    let networks = targets(&spec);
    let known = |refusal| networks::only_here(&state, &networks, refusal);
    let verb = Verb::ServiceUpdate {
        reference: id,
        version,
        spec,
        credentials,
        rollback,
    };
    match state.call(verb).await.map_err(known)? {
        Reply::ServiceWritten { warnings, .. } => Ok(json(&UpdateResponse { warnings })),
        other => Err(unexpected("service update", &other).into()),
    }
}

/// 200, not 204, as Docker.
async fn remove(State(state): State<AppState>, Path(id): Path<String>) -> Answer {
    state.call(Verb::ServiceRemove { reference: id }).await?;
    Ok(empty())
}

async fn rebalance(State(state): State<AppState>, Path(id): Path<String>) -> Answer {
    match state.call(Verb::ServiceRebalance { reference: id }).await? {
        Reply::Moved(moved) => Ok(json(&RebalanceResponse { moved })),
        other => Err(unexpected("service rebalance", &other).into()),
    }
}

#[cfg(test)]
mod tests {
    use model::{
        Meta,
        service::{ServiceEndpoint, ServiceMode},
    };

    use super::*;

    fn service(id: &str, name: &str, mode: ServiceMode) -> (Service, ServiceStatus) {
        let service = Service {
            id: id.into(),
            meta: Meta::default(),
            spec: ServiceSpec {
                name: name.into(),
                labels: [("stack".to_owned(), name.to_owned())].into(),
                mode,
                ..ServiceSpec::default()
            },
            spec_version: 0,
            previous: None,
            endpoint: ServiceEndpoint::default(),
            update: None,
            job: None,
        };
        let status = ServiceStatus {
            running: 1,
            desired: 2,
            completed: 3,
        };
        (service, status)
    }

    #[test]
    fn filters_choose_services() {
        let services = [
            service("aa1", "web", ServiceMode::default()),
            service("aa2", "web_db", ServiceMode::Global),
            service("bb1", "job", ServiceMode::GlobalJob),
        ];
        for (text, names) in [
            ("", &["web", "web_db", "job"][..]),
            (r#"{"name":["web"]}"#, &["web", "web_db"]),
            (r#"{"id":{"aa":true}}"#, &["web", "web_db"]),
            (r#"{"mode":["global","global-job"]}"#, &["web_db", "job"]),
            (r#"{"label":["stack"]}"#, &["web", "web_db", "job"]),
            (r#"{"label":["stack=job"]}"#, &["job"]),
            (r#"{"runtime":["container"]}"#, &["web", "web_db", "job"]),
            (r#"{"runtime":["plugin"]}"#, &[]),
        ] {
            let filters = Filters::parse(text, FILTERS).unwrap();
            let found: Vec<_> = views(&services, &filters, false)
                .into_iter()
                .map(|view| view.spec.name)
                .collect();
            assert_eq!(found, names, "{text}");
        }
        let filters = Filters::default();
        assert!(
            views(&services, &filters, false)[0]
                .service_status
                .is_none()
        );
        let counted = views(&services, &filters, true)[0].service_status.unwrap();
        assert_eq!((counted.running_tasks, counted.desired_tasks), (1, 2));
    }

    #[test]
    fn credentials_are_kept_only_if_there_are_any() {
        for (text, kept) in [
            ("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==", true),
            ("e30=", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.parse().unwrap());
            let spec = with_credentials(ServiceSpec::default(), &headers).unwrap();
            assert_eq!(spec.task.container.registry_auth == text, kept, "{text}");
        }
    }
}
