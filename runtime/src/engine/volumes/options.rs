//! What the options of the local volume driver ask for: `type`, `device` and `o`. Pure.

use std::collections::BTreeMap;

use model::Refusal;
use nix::mount::MsFlags;

/// Options by name, as they are stored with the volume.
pub type Options = BTreeMap<String, String>;

/// A file system that is a volume's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    pub kind: String,
    pub device: String,
    pub flags: MsFlags,
    /// Empty: none was asked for.
    pub propagation: MsFlags,
    /// What only the file system itself understands, comma separated.
    pub data: String,
}

impl FileSystem {
    /// Reads a volume's options as Docker's local driver does. Absent: a plain folder.
    pub fn of(options: &Options) -> Result<Option<Self>, Refusal> {
        for option in options.keys() {
            match option.as_str() {
                "type" | "device" | "o" => {}
                "size" => {
                    return Err(Refusal::invalid(
                        "option \"size\": a plain volume cannot be limited, there are no quotas \
                         for it; a tmpfs can: -o type=tmpfs -o device=tmpfs -o o=size=64m",
                    ));
                }
                other => {
                    return Err(Refusal::invalid(format!(
                        "invalid option: {other:?}; the driver local has type, device and o"
                    )));
                }
            }
        }
        for (given, needed) in [
            ("type", "device"),
            ("device", "type"),
            ("o", "type"),
            ("o", "device"),
        ] {
            if options.contains_key(given) && !options.contains_key(needed) {
                return Err(Refusal::invalid(format!(
                    "missing required option: {needed:?}; {given} is given, and type, device \
                     belong together"
                )));
            }
        }
        let value = |name: &str| options.get(name).map_or("", String::as_str);
        let (kind, device) = (value("type"), value("device"));
        if kind.is_empty() && device.is_empty() && value("o").is_empty() {
            return Ok(None);
        }
        if device.is_empty() {
            return Err(Refusal::invalid(
                "missing required option: \"device\"; it is empty",
            ));
        }
        let mut read = Self {
            kind: kind.to_owned(),
            device: device.to_owned(),
            flags: MsFlags::empty(),
            propagation: MsFlags::empty(),
            data: String::new(),
        };
        let mut data = Vec::new();
        for word in value("o").split(',').filter(|word| !word.is_empty()) {
            match flag(word) {
                Some(Word::Set(flag)) => read.flags |= flag,
                Some(Word::Clear(flag)) => read.flags &= !flag,
                Some(Word::Propagation(flag)) => read.propagation = flag,
                Some(Word::Impossible) => {
                    return Err(Refusal::invalid(format!(
                        "option \"o\": {word} is not possible for a volume; leave it out"
                    )));
                }
                None => data.push(word),
            }
        }
        read.data = data.join(",");
        if read.is_bind() && !device.starts_with('/') {
            return Err(Refusal::invalid(format!(
                "option \"device\": {device:?} must be an absolute path to be bound"
            )));
        }
        if !read.is_bind() && matches!(kind, "" | "none") {
            return Err(Refusal::invalid(format!(
                "option \"type\": {kind:?} is no file system; give its name, or o=bind to have the folder {device}"
            )));
        }
        Ok(Some(read))
    }

    pub fn is_bind(&self) -> bool {
        self.flags.contains(MsFlags::MS_BIND)
    }

    /// Gone with the last unmount.
    pub fn is_volatile(&self) -> bool {
        !self.is_bind() && matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    /// Needs the address of another host.
    pub fn is_remote(&self) -> bool {
        matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3")
    }

    /// The host whose address is to be looked up: `addr=` where it is given, else the device's.
    pub fn host(&self) -> Option<&str> {
        if !self.is_remote() {
            return None;
        }
        let given = self.data.split(',').find_map(|w| w.strip_prefix("addr="));
        let named = || {
            if self.kind.starts_with("nfs") {
                let (host, _) = self.device.split_once(":/")?;
                Some(host.trim_matches(['[', ']']))
            } else {
                self.device
                    .trim_start_matches(['/', '\\'])
                    .split('/')
                    .next()
            }
        };
        given.or_else(named).filter(|host| !host.is_empty())
    }

    /// The same with the address in place of the name.
    pub fn with_address(&self, address: &str) -> Self {
        let mut words: Vec<String> = self
            .data
            .split(',')
            .filter(|word| !word.is_empty() && !word.starts_with("addr="))
            .map(str::to_owned)
            .collect();
        words.push(format!("addr={address}"));
        Self {
            data: words.join(","),
            ..self.clone()
        }
    }
}

/// How what is there differs from what is asked for, in words; absent when it does not. Asking
/// for nothing takes what is there.
pub fn difference(there: &Options, asked: &Options) -> Option<String> {
    if asked.is_empty() || there == asked {
        return None;
    }
    // The content of `o` may be a password.
    let shown = |options: &Options, name: &str| match options.get(name) {
        None => "none".to_owned(),
        Some(_) if name == "o" => "another".to_owned(),
        Some(value) => format!("{value:?}"),
    };
    let mut names: Vec<&String> = there.keys().chain(asked.keys()).collect();
    names.sort();
    names.dedup();
    let words: Vec<String> = names
        .into_iter()
        .filter(|name| there.get(*name) != asked.get(*name))
        .map(|name| match (there.get(name), asked.get(name)) {
            (Some(_), Some(_)) if name == "o" => {
                "o is not the same (ovnctl volume inspect shows it)".to_owned()
            }
            _ => format!(
                "{name} is {} and {} is asked for",
                shown(there, name),
                shown(asked, name)
            ),
        })
        .collect();
    Some(words.join(", "))
}

enum Word {
    Set(MsFlags),
    Clear(MsFlags),
    Propagation(MsFlags),
    Impossible,
}

/// The words of mount(8) that the kernel takes as flags.
fn flag(word: &str) -> Option<Word> {
    let all = MsFlags::MS_REC;
    Some(match word {
        "defaults" | "rw" => Word::Clear(MsFlags::MS_RDONLY),
        "ro" => Word::Set(MsFlags::MS_RDONLY),
        "suid" => Word::Clear(MsFlags::MS_NOSUID),
        "nosuid" => Word::Set(MsFlags::MS_NOSUID),
        "dev" => Word::Clear(MsFlags::MS_NODEV),
        "nodev" => Word::Set(MsFlags::MS_NODEV),
        "exec" => Word::Clear(MsFlags::MS_NOEXEC),
        "noexec" => Word::Set(MsFlags::MS_NOEXEC),
        "async" => Word::Clear(MsFlags::MS_SYNCHRONOUS),
        "sync" => Word::Set(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Word::Set(MsFlags::MS_DIRSYNC),
        "atime" => Word::Clear(MsFlags::MS_NOATIME),
        "noatime" => Word::Set(MsFlags::MS_NOATIME),
        "diratime" => Word::Clear(MsFlags::MS_NODIRATIME),
        "nodiratime" => Word::Set(MsFlags::MS_NODIRATIME),
        "relatime" => Word::Set(MsFlags::MS_RELATIME),
        "norelatime" => Word::Clear(MsFlags::MS_RELATIME),
        "strictatime" => Word::Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Word::Clear(MsFlags::MS_STRICTATIME),
        "bind" => Word::Set(MsFlags::MS_BIND),
        "rbind" => Word::Set(MsFlags::MS_BIND | all),
        "private" => Word::Propagation(MsFlags::MS_PRIVATE),
        "rprivate" => Word::Propagation(MsFlags::MS_PRIVATE | all),
        "shared" => Word::Propagation(MsFlags::MS_SHARED),
        "rshared" => Word::Propagation(MsFlags::MS_SHARED | all),
        "slave" => Word::Propagation(MsFlags::MS_SLAVE),
        "rslave" => Word::Propagation(MsFlags::MS_SLAVE | all),
        "unbindable" | "runbindable" | "remount" | "move" => Word::Impossible,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
