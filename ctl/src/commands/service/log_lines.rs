//! The lines of `service logs`: what the daemon sends in front of each, and what is shown in its place.
//!
//! A line is `[TIME ]DETAILS TEXT`, where the details are `k=v,k=v`, each escaped as in a query.

use std::collections::BTreeMap;

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Node's id.
    pub node: String,
    /// Service's id.
    pub service: String,
    /// Task's id.
    pub task: String,
}

/// One line taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The time, when it was asked for.
    pub time: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// Further details, `k=v,k=v` sorted.
    pub details: String,
    /// What was written, with its newline if it has one.
    pub text: Vec<u8>,
}

/// Takes a line apart; `timed` says whether times were asked for.
pub fn take_apart(line: &[u8], timed: bool) -> Result<LogLine, String> {
    let bad = || {
        format!(
            "invalid context in log message: {}",
            String::from_utf8_lossy(line).trim_end()
        )
    };
    let mut parts = line.splitn(if timed { 3 } else { 2 }, |byte| *byte == b' ');
    let mut word = || {
        let part = parts.next().ok_or_else(bad)?;
        String::from_utf8(part.to_vec()).map_err(|_| bad())
    };
    let time = timed.then(&mut word).transpose()?;
    let mut details = read_details(&word()?)?;
    let text = parts.next().ok_or_else(bad)?.to_vec();
    let mut take = |name: &str| {
        details
            .remove(&format!("com.docker.swarm.{name}.id"))
            .ok_or_else(|| format!("missing {name} id in details of a log message"))
    };
    let origin = Origin {
        node: take("node")?,
        service: take("service")?,
        task: take("task")?,
    };
    let details: Vec<String> = details.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Ok(LogLine {
        time,
        origin,
        details: details.join(","),
        text,
    })
}

fn read_details(text: &str) -> Result<BTreeMap<String, String>, String> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("invalid details format: {pair}"))?;
            Ok((unescape(key), unescape(value)))
        })
        .collect()
}

/// `%41+b` to `A b`; what is no escape stays.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while let Some(byte) = bytes.get(position) {
        let hex = (*byte == b'%')
            .then(|| text.get(position + 1..position + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(value) = hex {
            plain.push(value);
            position += 3;
        } else {
            plain.push(if *byte == b'+' { b' ' } else { *byte });
            position += 1;
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Cuts bytes that come in pieces into whole lines.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes a piece and hands out the lines that are whole with it, newlines included.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(piece);
        let mut whole = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            whole.push(std::mem::replace(&mut self.0, rest));
        }
        whole
    }

    /// What is left without a newline at the end of the stream.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str =
        "com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t";

    #[test]
    fn lines_are_taken_apart() {
        let origin = Origin {
            node: "n".to_owned(),
            service: "s".to_owned(),
            task: "t".to_owned(),
        };
        let cases = [
            (
                format!("{IDS} hello  world\n"),
                false,
                None,
                "",
                "hello  world\n",
            ),
            (
                format!("2023-01-01T00:00:00Z {IDS} x\n"),
                true,
                Some("2023-01-01T00:00:00Z"),
                "",
                "x\n",
            ),
            (
                format!("{IDS},z=1%2C2,a=b+c \n"),
                false,
                None,
                "a=b c,z=1,2",
                "\n",
            ),
        ];
        for (line, timed, time, details, text) in cases {
            let wanted = LogLine {
                time: time.map(str::to_owned),
                origin: origin.clone(),
                details: details.to_owned(),
                text: text.as_bytes().to_vec(),
            };
            assert_eq!(take_apart(line.as_bytes(), timed), Ok(wanted), "{line}");
        }
        for bad in ["", "hello\n", "a=b hello\n", "x hello\n"] {
            assert!(take_apart(bad.as_bytes(), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_that_are_none_stay() {
        for (text, plain) in [
            ("%41%2c", "A,"),
            ("100%", "100%"),
            ("%zz", "%zz"),
            ("%E2%82%AC", "€"),
            ("%é", "%é"),
        ] {
            assert_eq!(unescape(text), plain);
        }
    }

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        assert!(lines.push(b"a").is_empty());
        assert_eq!(lines.push(b"b\nc\nd"), [b"ab\n".to_vec(), b"c\n".to_vec()]);
        assert_eq!(lines.rest(), Some(b"d".to_vec()));
        assert_eq!(lines.rest(), None);
    }
}
