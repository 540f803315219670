//! Reading request bodies and the shape of error answers.

use model::Refusal;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::lenient;

/// Every refusal's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub message: String,
}

/// Reads a JSON body as Go's decoder does: keys in any case, `null` meaning "not given".
///
/// A malformed body is refused naming line and column; a value of a wrong type or an unknown
/// enumeration value is refused naming the field (`HostConfig.RestartPolicy.Name`).
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::invalid(
            "the request needs a JSON body and has none",
        ));
    }
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| {
        Refusal::invalid(format!("the request body is not valid JSON: {error}"))
    })?;
    lenient::from_value(value)
        .map_err(|error| Refusal::invalid(format!("invalid request body: {error}")))
}

/// As [`read`], and an empty body means the default.
pub fn read_or_default<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    read(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::ContainerCreateBody;

    #[test]
    fn refusals_name_the_position_or_the_field() {
        for (body, words) in [
            ("", "has none"),
            ("{\"Image\": ", "line 1 column 10"),
            (
                "{\"Image\": \"a\"} x",
                "trailing characters at line 1 column 16",
            ),
            ("[]", "expected"),
            (
                "{\"Image\": 5}",
                "Image: expected a string, found the number 5",
            ),
            (
                "{\"HostConfig\":{\"Memory\":\"1\"}}",
                "HostConfig.Memory: expected",
            ),
            (
                "{\"hostconfig\":{\"restartpolicy\":{\"name\":\"sometimes\"}}}",
                "HostConfig.RestartPolicy.Name: \"sometimes\" is not one of no, always, unless-stopped, on-failure",
            ),
            ("{\"Env\":[\"a\",{}]}", "Env[1]: expected a string"),
        ] {
            let refusal = read::<ContainerCreateBody>(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.kind.status(), 400, "{body}");
            assert!(
                refusal.message.contains(words),
                "{body}: {}",
                refusal.message
            );
        }
    }

    #[test]
    fn keys_in_any_case_and_nulls() {
        let body = r#"{"image":"echo","ENV":null,"HostConfig":{"binds":["/a:/b"],"RestartPolicy":{"Name":""},
            "LogConfig":{"Type":"","Config":null},"CgroupnsMode":"","Isolation":"","ConsoleSize":[0,0]},
            "NetworkingConfig":{"EndpointsConfig":{"ch03":null}},"Volumes":{"/data":{}}, "Tty": null}"#;
        let read: ContainerCreateBody = read(body.as_bytes()).unwrap();
        assert_eq!(read.image.as_deref(), Some("echo"));
        assert_eq!(read.env, None);
        assert_eq!(read.volumes.as_deref(), Some(&["/data".to_owned()][..]));
        let endpoints = read.networking_config.unwrap().endpoints_config.unwrap();
        assert!(endpoints.contains_key("ch03"));
        assert_eq!(read.host_config.unwrap().binds.unwrap(), ["/a:/b"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>, text in "[\\[\\]{}\",:a-zA-Z0-9.-]{0,60}") {
            let _ = read::<ContainerCreateBody>(&bytes);
            let _ = read::<ContainerCreateBody>(text.as_bytes());
            let _ = crate::Filters::parse(&text, &["label"]);
            let wrapped = format!("{{\"HostConfig\":{{\"{text}\":{{}}}}}}");
            let _ = read::<ContainerCreateBody>(wrapped.as_bytes());
        }
    }
}
