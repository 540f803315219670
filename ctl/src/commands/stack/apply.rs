//! Carrying out a deploy, and keeping account of what was made in case it stops in the middle.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::decide::{self, Known, Resolve, ServiceStep};
use super::observe::Observed;
use super::version::{Step, Wanted, encode};
use crate::commands::service::send::{self, Auth};
use crate::commands::text;
use crate::compose::convert::{Network, Service, Stack};
use crate::failure::Failure;
use crate::session::Session;

/// How a deploy is carried out.
pub struct Apply<'a> {
    /// Where it happens.
    pub session: &'a Session,
    /// The cluster before.
    pub observed: &'a Observed,
    /// Whether registries are asked.
    pub resolve: Resolve,
    /// Whether credentials are sent along.
    pub registry_auth: bool,
    /// What was made so far.
    pub done: Vec<String>,
    /// Registry answers by image, so that each image is asked for once.
    pinned: BTreeMap<String, Value>,
}

/// A service after the deploy: its name, and its id.
pub type Deployed = (String, String);

impl<'a> Apply<'a> {
    /// Nothing done yet.
    pub fn new(
        session: &'a Session,
        observed: &'a Observed,
        resolve: Resolve,
        registry_auth: bool,
    ) -> Self {
        Self {
            session,
            observed,
            resolve,
            registry_auth,
            done: Vec::new(),
            pinned: BTreeMap::new(),
        }
    }

    /// Networks, secrets, configs, services, in this order. Returns the services that were
    /// created or changed.
    pub async fn all(
        &mut self,
        stack: &Stack,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<Deployed>, Failure> {
        let mut known = Known::of(self.observed);
        for network in decide::networks(stack, &self.observed.networks) {
            let id = self.network(network).await?;
            known.networks.insert(network.name.clone(), id);
        }
        self.objects(wanted, &mut known).await?;
        let mut changed = Vec::new();
        for service in &stack.services {
            changed.extend(self.service(service, &known).await?);
        }
        Ok(changed)
    }

    /// Makes it and gives its id.
    async fn network(&mut self, network: &Network) -> Result<String, Failure> {
        self.session
            .line(&format!("Creating network {}", network.name))?;
        let call = self
            .session
            .client()
            .await?
            .post("/networks/create")
            .json(&network.body);
        let answer = call
            .value()
            .await
            .map_err(|e| failed("create network", &network.name, &e.into()))?;
        self.done.push(format!("network {}", network.name));
        Ok(text(&answer, "/Id").to_owned())
    }

    /// Makes the secrets and configs that are missing, and adds what their names mean then.
    async fn objects(&mut self, wanted: &[Wanted<'_>], known: &mut Known) -> Result<(), Failure> {
        let there = &self.observed.objects;
        for wanted in wanted {
            let kind = wanted.object.kind;
            let by_name = |name: &str| there.get(&(kind, name.to_owned()));
            let step = wanted.decide(by_name(&wanted.object.name), by_name(&wanted.versioned));
            let (id, name) = match step {
                Step::Create(name) => (self.create(wanted, &name).await?, name),
                Step::Relabel(found) => {
                    let body = body(wanted, &found.name);
                    let path = format!("/{}s/{}/update", kind.word(), found.id);
                    let call = self
                        .session
                        .client()
                        .await?
                        .post(path)
                        .query("version", found.version)
                        .json(&body);
                    call.done().await.map_err(|e| {
                        failed(&format!("update {}", kind.word()), &found.name, &e.into())
                    })?;
                    (found.id, found.name)
                }
                Step::Keep(found) => (found.id, found.name),
            };
            known
                .objects
                .insert((kind, wanted.object.name.clone()), (id, name));
        }
        Ok(())
    }

    async fn create(&mut self, wanted: &Wanted<'_>, name: &str) -> Result<String, Failure> {
        let word = wanted.object.kind.word();
        self.session.line(&format!("Creating {word} {name}"))?;
        let call = self
            .session
            .client()
            .await?
            .post(format!("/{word}s/create"))
            .json(&body(wanted, name));
        let answer = call
            .value()
            .await
            .map_err(|e| failed(&format!("create {word}"), name, &e.into()))?;
        self.done.push(format!("{word} {name}"));
        Ok(text(&answer, "/ID").to_owned())
    }

    async fn service(
        &mut self,
        service: &Service,
        known: &Known,
    ) -> Result<Option<Deployed>, Failure> {
        let now = self.observed.service(&service.name);
        let auth = if self.registry_auth {
            Some(send::credentials(self.session, &service.image)?)
        } else {
            None
        };
        let mut spec = service.spec.clone();
        decide::bind(&mut spec, known);
        if now.is_none() {
            self.session
                .line(&format!("Creating service {}", service.name))?;
        }
        if decide::asks_registry(service, now, self.resolve) {
            self.pin(&mut spec, auth.as_deref()).await?;
        }
        match (decide::service(service, spec, now), now) {
            (ServiceStep::Update { spec, .. }, Some(now)) => {
                self.session.line(&format!(
                    "Updating service {} (id: {})",
                    service.name,
                    text(now, "/ID")
                ))?;
                let auth = auth.map_or(Auth::Unsaid, Auth::Header);
                send::update(self.session, now, &spec, &auth, false)
                    .await
                    .map_err(|failure| failed("update service", &service.name, &failure))?;
                self.done
                    .push(format!("service {} (updated)", service.name));
                Ok(Some((service.name.clone(), text(now, "/ID").to_owned())))
            }
            (ServiceStep::Create(spec) | ServiceStep::Update { spec, .. }, _) => {
                let id = send::create(self.session, &spec, auth.as_deref())
                    .await
                    .map_err(|failure| failed("create service", &service.name, &failure))?;
                self.done.push(format!("service {}", service.name));
                Ok(Some((service.name.clone(), id)))
            }
            (ServiceStep::Keep, now) => {
                let id = now.map_or("", |now| text(now, "/ID"));
                self.session.line(&format!(
                    "Updating service {} (id: {id}): nothing changed",
                    service.name
                ))?;
                Ok(None)
            }
        }
    }

    async fn pin(&mut self, spec: &mut Value, auth: Option<&str>) -> Result<(), Failure> {
        let image = text(spec, "/TaskTemplate/ContainerSpec/Image").to_owned();
        if !self.pinned.contains_key(&image) {
            let mut probe = json!({"TaskTemplate": {"ContainerSpec": {"Image": image}}});
            send::pin(self.session, &mut probe, auth).await?;
            self.pinned.insert(image.clone(), probe);
        }
        let Some(probe) = self.pinned.get(&image) else {
            return Ok(());
        };
        spec["TaskTemplate"]["ContainerSpec"]["Image"] =
            probe["TaskTemplate"]["ContainerSpec"]["Image"].clone();
        let platforms = &probe["TaskTemplate"]["Placement"]["Platforms"];
        let own = spec["TaskTemplate"]["Placement"]["Platforms"].is_array();
        if platforms.is_array() && !own {
            spec["TaskTemplate"]["Placement"]["Platforms"] = platforms.clone();
        }
        Ok(())
    }
}

fn body(wanted: &Wanted<'_>, name: &str) -> Value {
    let mut body = wanted.object.spec.clone();
    body["Name"] = json!(name);
    body["Labels"] = Value::Object(wanted.labels());
    if let Some(content) = &wanted.object.content {
        body["Data"] = json!(encode(content));
    }
    body
}

fn failed(what: &str, name: &str, failure: &Failure) -> Failure {
    Failure {
        status: failure.status,
        message: Some(format!("failed to {what} {name}: {}", failure.text())),
        refusal: failure.refusal,
    }
}
