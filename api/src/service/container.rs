//! What a task's container is made from: `ContainerSpec`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{
    Refusal,
    task::{ContainerSpec, DnsSpec, FileTarget, HealthSpec, PayloadReference, Privileges, Ulimit},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{mount::MountView, spec::Nothing};
use crate::{duration, omit};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSpecView {
    /// Always there in answers, because clients read it without looking.
    pub image: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub hostname: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub dir: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub user: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<PrivilegesView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "omit::empty")]
    pub tty: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub open_stdin: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub mounts: Vec<MountView>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthView>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsView>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub secrets: Vec<SecretReference>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub configs: Vec<ConfigReference>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub isolation: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub sysctls: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub capability_add: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub capability_drop: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub ulimits: Vec<UlimitView>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub oom_score_adj: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PrivilegesView {
    /// Windows' own: refused unless empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_spec: Option<Value>,
    /// Refused unless empty.
    #[serde(rename = "SELinuxContext", skip_serializing_if = "Option::is_none")]
    pub selinux_context: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_armor: Option<AppArmorView>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub no_new_privileges: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SeccompView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub mode: String,
    /// Base64 of the profile's JSON.
    #[serde(skip_serializing_if = "omit::empty")]
    pub profile: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AppArmorView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub mode: String,
}

/// Durations in nanoseconds; 0: the image's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub interval: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub retries: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileView>,
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    pub secret_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileView>,
    /// Instead of a file: only named, for a credential spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Nothing>,
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    pub config_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FileView {
    pub name: String,
    #[serde(rename = "UID")]
    pub uid: String,
    #[serde(rename = "GID")]
    pub gid: String,
    pub mode: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UlimitView {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}

/// Whether it says anything: clients send the empty form of what they do not use.
fn says_something(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(map)) => map.values().any(|value| says_something(Some(value))),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

impl ContainerSpecView {
    pub(super) fn into_model(self) -> Result<ContainerSpec, Refusal> {
        let field = |name: &str| format!("ContainerSpec.{name}");
        if self.image.trim().is_empty() {
            return Err(Refusal::invalid(
                "ContainerSpec: image reference must be provided",
            ));
        }
        if !matches!(self.isolation.to_ascii_lowercase().as_str(), "" | "default") {
            return Err(Refusal::invalid(format!(
                "ContainerSpec.Isolation: {:?} is a choice of Windows; on Linux there is only default",
                self.isolation
            )));
        }
        let grace = self
            .stop_grace_period
            .map(|nanos| duration::read(&field("StopGracePeriod"), nanos))
            .transpose()?;
        Ok(ContainerSpec {
            image: self.image,
            labels: self.labels,
            command: self.command,
            args: self.args,
            hostname: self.hostname,
            env: self.env,
            dir: self.dir,
            user: self.user,
            groups: self.groups,
            privileges: self.privileges.unwrap_or_default().into_model()?,
            tty: self.tty,
            open_stdin: self.open_stdin,
            read_only: self.read_only,
            stop_signal: self.stop_signal,
            stop_grace_period: grace,
            health: self.healthcheck.map(HealthView::into_model).transpose()?,
            mounts: self
                .mounts
                .into_iter()
                .map(MountView::into_model)
                .collect::<Result<_, _>>()?,
            hosts: self.hosts,
            dns: self.dns_config.unwrap_or_default().into_model()?,
            secrets: self.secrets.into_iter().map(Into::into).collect(),
            configs: self.configs.into_iter().map(Into::into).collect(),
            isolation: String::new(),
            init: self.init,
            sysctls: self.sysctls,
            cap_add: self.capability_add,
            cap_drop: self.capability_drop,
            ulimits: self
                .ulimits
                .into_iter()
                .map(|limit| Ulimit {
                    name: limit.name,
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            oom_score_adj: self.oom_score_adj,
            registry_auth: String::new(),
        })
    }
}

impl From<&ContainerSpec> for ContainerSpecView {
    fn from(spec: &ContainerSpec) -> Self {
        Self {
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            command: spec.command.clone(),
            args: spec.args.clone(),
            hostname: spec.hostname.clone(),
            env: spec.env.clone(),
            dir: spec.dir.clone(),
            user: spec.user.clone(),
            groups: spec.groups.clone(),
            privileges: (spec.privileges != Privileges::default())
                .then(|| PrivilegesView::from(&spec.privileges)),
            init: spec.init,
            stop_signal: spec.stop_signal.clone(),
            tty: spec.tty,
            open_stdin: spec.open_stdin,
            read_only: spec.read_only,
            mounts: spec.mounts.iter().map(MountView::from).collect(),
            stop_grace_period: spec.stop_grace_period.map(duration::nanos),
            healthcheck: spec.health.as_ref().map(HealthView::from),
            hosts: spec.hosts.clone(),
            dns_config: Some(DnsView::from(&spec.dns)),
            secrets: spec.secrets.iter().map(SecretReference::from).collect(),
            configs: spec.configs.iter().map(ConfigReference::from).collect(),
            isolation: "default".to_owned(),
            sysctls: spec.sysctls.clone(),
            capability_add: spec.cap_add.clone(),
            capability_drop: spec.cap_drop.clone(),
            ulimits: spec
                .ulimits
                .iter()
                .map(|limit| UlimitView {
                    name: limit.name.clone(),
                    hard: limit.hard,
                    soft: limit.soft,
                })
                .collect(),
            oom_score_adj: spec.oom_score_adj,
        }
    }
}

impl PrivilegesView {
    fn into_model(self) -> Result<Privileges, Refusal> {
        if says_something(self.credential_spec.as_ref()) {
            return Err(Refusal::not_implemented(
                "ContainerSpec.Privileges.CredentialSpec belongs to Windows and has no meaning here; leave it out",
            ));
        }
        if says_something(self.selinux_context.as_ref()) {
            return Err(Refusal::not_implemented(
                "ContainerSpec.Privileges.SELinuxContext: labels of SELinux are not set here; leave it out",
            ));
        }
        let seccomp = self.seccomp.unwrap_or_default();
        let apparmor = self.app_armor.unwrap_or_default();
        let known = |field: &str, mode: &str, words: &[&str]| {
            if mode.is_empty() || words.contains(&mode) {
                return Ok(());
            }
            Err(Refusal::invalid(format!(
                "ContainerSpec.Privileges.{field}.Mode: {mode:?} is not one of {}",
                words.join(", ")
            )))
        };
        known(
            "Seccomp",
            &seccomp.mode,
            &["default", "unconfined", "custom"],
        )?;
        known("AppArmor", &apparmor.mode, &["default", "disabled"])?;
        let seccomp_profile = STANDARD.decode(&seccomp.profile).map_err(|error| {
            Refusal::invalid(format!(
                "ContainerSpec.Privileges.Seccomp.Profile is not base64: {error}"
            ))
        })?;
        if (seccomp.mode == "custom") == seccomp_profile.is_empty() {
            return Err(Refusal::invalid(
                "ContainerSpec.Privileges.Seccomp: a profile and the mode custom go together",
            ));
        }
        Ok(Privileges {
            no_new_privileges: self.no_new_privileges,
            seccomp_mode: seccomp.mode,
            seccomp_profile,
            apparmor_mode: apparmor.mode,
        })
    }
}

impl From<&Privileges> for PrivilegesView {
    fn from(privileges: &Privileges) -> Self {
        Self {
            credential_spec: None,
            selinux_context: None,
            seccomp: (!privileges.seccomp_mode.is_empty()).then(|| SeccompView {
                mode: privileges.seccomp_mode.clone(),
                profile: STANDARD.encode(&privileges.seccomp_profile),
            }),
            app_armor: (!privileges.apparmor_mode.is_empty()).then(|| AppArmorView {
                mode: privileges.apparmor_mode.clone(),
            }),
            no_new_privileges: privileges.no_new_privileges,
        }
    }
}

impl HealthView {
    fn into_model(self) -> Result<HealthSpec, Refusal> {
        let time = |name: &str, nanos| {
            duration::read_set(&format!("ContainerSpec.Healthcheck.{name}"), nanos)
        };
        let retries = u64::try_from(self.retries).map_err(|_| {
            Refusal::invalid(format!(
                "ContainerSpec.Healthcheck.Retries: {} cannot be negative",
                self.retries
            ))
        })?;
        Ok(HealthSpec {
            interval: time("Interval", self.interval)?,
            timeout: time("Timeout", self.timeout)?,
            retries: Some(retries).filter(|retries| *retries != 0),
            start_period: time("StartPeriod", self.start_period)?,
            start_interval: time("StartInterval", self.start_interval)?,
            test: self.test,
        })
    }
}

impl From<&HealthSpec> for HealthView {
    fn from(health: &HealthSpec) -> Self {
        let time = |duration: Option<_>| duration.map_or(0, duration::nanos);
        Self {
            test: health.test.clone(),
            interval: time(health.interval),
            timeout: time(health.timeout),
            start_period: time(health.start_period),
            start_interval: time(health.start_interval),
            retries: i64::try_from(health.retries.unwrap_or(0)).unwrap_or(i64::MAX),
        }
    }
}

impl DnsView {
    fn into_model(self) -> Result<DnsSpec, Refusal> {
        let address = |text: &String| {
            text.trim().parse().map_err(|_| {
                Refusal::invalid(format!(
                    "ContainerSpec.DNSConfig.Nameservers: {text:?} is not an IP address"
                ))
            })
        };
        Ok(DnsSpec {
            nameservers: self
                .nameservers
                .iter()
                .map(address)
                .collect::<Result<_, _>>()?,
            search: self.search,
            options: self.options,
        })
    }
}

impl From<&DnsSpec> for DnsView {
    fn from(dns: &DnsSpec) -> Self {
        Self {
            nameservers: dns.nameservers.iter().map(ToString::to_string).collect(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        }
    }
}

impl From<FileView> for FileTarget {
    fn from(file: FileView) -> Self {
        Self {
            name: file.name,
            uid: file.uid,
            gid: file.gid,
            mode: file.mode,
        }
    }
}

impl From<&FileTarget> for FileView {
    fn from(file: &FileTarget) -> Self {
        Self {
            name: file.name.clone(),
            uid: file.uid.clone(),
            gid: file.gid.clone(),
            mode: file.mode,
        }
    }
}

impl From<SecretReference> for PayloadReference {
    fn from(reference: SecretReference) -> Self {
        Self {
            id: reference.secret_id.into(),
            name: reference.secret_name,
            file: reference.file.map(Into::into),
        }
    }
}

impl From<&PayloadReference> for SecretReference {
    fn from(reference: &PayloadReference) -> Self {
        Self {
            file: reference.file.as_ref().map(FileView::from),
            secret_id: reference.id.to_string(),
            secret_name: reference.name.clone(),
        }
    }
}

impl From<ConfigReference> for PayloadReference {
    fn from(reference: ConfigReference) -> Self {
        Self {
            id: reference.config_id.into(),
            name: reference.config_name,
            file: reference.file.map(Into::into),
        }
    }
}

impl From<&PayloadReference> for ConfigReference {
    fn from(reference: &PayloadReference) -> Self {
        Self {
            file: reference.file.as_ref().map(FileView::from),
            runtime: reference.file.is_none().then_some(Nothing {}),
            config_id: reference.id.to_string(),
            config_name: reference.name.clone(),
        }
    }
}
