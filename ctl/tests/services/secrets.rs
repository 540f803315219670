//! `secret` and `config`.

use serde_json::{Value, json};

use super::fake::{Fake, Reply};
use super::{ok, path};

fn store() -> Fake {
    Fake::start(|asked, _| match path(&asked.line) {
        "POST /secrets/create" => Reply::Json(201, json!({"ID": "sec1"})),
        "POST /configs/create" => Reply::Json(201, json!({"ID": "cfg1"})),
        "GET /secrets" => ok(json!([{"ID": "sec1", "Spec": {"Name": "pw", "Labels": {"a": "1"}}}])),
        "GET /configs/cf" => ok(json!({
            "ID": "cfg1", "CreatedAt": "2023-11-14T22:13:20.5Z", "UpdatedAt": "2023-11-14T22:13:20Z",
            "Spec": {"Name": "cf", "Labels": {"a": "1"}, "Data": "aGVsbG8="}})),
        "DELETE /secrets/pw" => Reply::Json(204, Value::Null),
        "DELETE /configs/cf" => Reply::Json(
            400,
            json!({"message": "config 'cf' is in use by the following service: web"}),
        ),
        other => Reply::Json(404, json!({"message": format!("no {other}")})),
    })
}

#[tokio::test]
async fn creation() {
    let fake = store();
    std::fs::write(fake.folder().join("f"), "hello").unwrap();
    let templating = json!({"Name": "golang"});
    let cases = [
        (
            "secret create -l a=1 --template-driver golang pw -",
            json!({"Name": "pw", "Labels": {"a": "1"}, "Data": "aHVudGVyMg==", "Templating": templating}),
        ),
        (
            "secret create -d vault pw",
            json!({"Name": "pw", "Labels": {}, "Driver": {"Name": "vault"}}),
        ),
        (
            "config create cf f",
            json!({"Name": "cf", "Labels": {}, "Data": "aGVsbG8="}),
        ),
    ];
    for (words, wanted) in cases {
        let words: Vec<&str> = words.split_whitespace().collect();
        let done = fake.ctl(&words, "hunter2").await;
        assert_eq!(done.status, 0, "{}", done.err);
        assert!(
            matches!(done.out.as_str(), "sec1\n" | "cfg1\n"),
            "{}",
            done.out
        );
        assert_eq!(fake.asked().pop().map(|a| a.body), Some(wanted));
    }
    let refusals = [
        (
            "secret create pw",
            "the content of secret pw is missing: give a file, or - for standard input\n",
        ),
        (
            "secret create -d vault pw f",
            "when using secret driver secret data must be empty\n",
        ),
        (
            "config create cf none",
            "error reading content from \"none\": No such file or directory (os error 2)\n",
        ),
    ];
    for (words, message) in refusals {
        let words: Vec<&str> = words.split_whitespace().collect();
        let done = fake.ctl(&words, "").await;
        assert_eq!((done.status, done.err.as_str()), (1, message));
    }
}

#[tokio::test]
async fn lists_pages_and_removal() {
    let fake = store();
    let page = "ID:\t\t\tcfg1\nName:\t\t\tcf\nLabels:\n - a=1\n\
        Created at:            \t2023-11-14 22:13:20.5 +0000 utc\nUpdated at:            \t2023-11-14 22:13:20 +0000 utc\n\
        Data:\nhello\n";
    let cases = [
        (
            "secret ls --filter name=p --format {{.Name}}:{{.Labels}}",
            0,
            "pw:a=1\n",
        ),
        ("secret ls -q", 0, "sec1\n"),
        (
            "secret rm pw gone",
            1,
            "pw\nError response from daemon: no DELETE /secrets/gone\n",
        ),
        (
            "config rm cf",
            1,
            "Error response from daemon: config 'cf' is in use by the following service: web\n",
        ),
        ("config inspect -f {{.Spec.Name}} cf", 0, "cf\n"),
        ("config inspect --pretty cf", 0, page),
        (
            "config inspect --pretty -f x cf",
            1,
            "--format is incompatible with human friendly format\n",
        ),
    ];
    for (words, status, wanted) in cases {
        let words: Vec<&str> = words.split_whitespace().collect();
        let done = fake.ctl(&words, "").await;
        assert_eq!(
            (done.status, done.out + &done.err),
            (status, wanted.to_owned()),
            "{words:?}"
        );
    }
}
