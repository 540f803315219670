//! Go's text templates over JSON values, as far as `--format` uses them.
//!
//! Own engine instead of a library: fields of maps come in sorted order, a wrong
//! field names the fields there are, and Docker's functions are built in. Source of
//! the language: the documentation of Go's `text/template`. Not taken: `define`,
//! `template`, `block`, `call`, `html`, `js`.

mod eval;
mod functions;
mod lex;
mod parse;
mod print;

use serde_json::Value;

pub use parse::Template;
pub use print::{go_quote, go_text, pretty_json};

/// A template that cannot be read or run; the text names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template error: {0}")]
pub struct TemplateError(pub(crate) String);

impl Template {
    /// Reads a template; `\t` and `\n` written out stand for tab and newline, as in Docker.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        Self::parse(&source.replace("\\t", "\t").replace("\\n", "\n"))
    }

    /// Runs it on `data`.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::run(self, data, eval::Mode::Data)
    }

    /// Runs it on a map from field to heading: functions hand their text through unchanged.
    pub fn render_headings(&self, headings: &Value) -> Result<String, TemplateError> {
        eval::run(self, headings, eval::Mode::Headings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, data: &Value) -> String {
        match Template::new(source).and_then(|t| t.render(data)) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_lies_too_deep_is_refused() {
        let data = json!({"Id": "4f1e"});
        let inside =
            |levels: usize| format!("{{{{{}.Id{}}}}}", "(".repeat(levels), ")".repeat(levels));
        assert_eq!(render(&inside(40), &data), "4f1e");
        let blocks = |levels| "{{if .Id}}".repeat(levels) + "x" + &"{{end}}".repeat(levels);
        assert_eq!(render(&blocks(40), &data), "x");
        for source in [inside(100_000), blocks(100_000)] {
            assert!(render(&source, &data).contains("more than 64 levels"));
        }
    }

    #[test]
    fn texts_that_double_are_stopped() {
        let source = format!("{{{{.Id{}}}}}", " | json".repeat(500));
        let said = render(&source, &json!({"Id": "\"4f1e"}));
        assert!(said.contains("more than 4 MiB"), "{said}");
    }

    #[test]
    fn the_idioms_people_use() {
        let data = json!({
            "Id": "4f1e", "Name": "/web", "Tags": ["a", "b", "c"],
            "State": {"Status": "running", "Pid": 17, "Running": true, "ExitCode": 0},
            "Config": {"Labels": {"z": "26", "a": "1", "m": "13"}, "Env": null, "Cmd": ["sh", "-c"]},
            "NetworkSettings": {"Networks": {
                "ch03": {"IPAddress": "10.0.1.4"}, "bridge": {"IPAddress": "172.17.0.2"}}},
            "HostConfig": {"NanoCpus": 1_500_000_000_u64, "Share": 1.5},
        });
        let cases = [
            ("{{.Id}}", "4f1e"),
            ("{{ .State.Status }} {{.State.Pid}}", "running 17"),
            (r"{{.Id}}\t{{.Name}}", "4f1e\t/web"),
            (
                "{{json .State}}",
                r#"{"Status":"running","Pid":17,"Running":true,"ExitCode":0}"#,
            ),
            ("{{json .Config.Env}}", "null"),
            ("{{range .Tags}}<{{.}}>{{end}}", "<a><b><c>"),
            (
                "{{range $i, $t := .Tags}}{{if $i}}, {{end}}{{$i}}={{$t}}{{end}}",
                "0=a, 1=b, 2=c",
            ),
            (
                "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
                "a=1;m=13;z=26;",
            ),
            (
                "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
                "172.17.0.2 10.0.1.4 ",
            ),
            (
                "{{(index .NetworkSettings.Networks \"ch03\").IPAddress}}",
                "10.0.1.4",
            ),
            ("{{.NetworkSettings.Networks.ch03.IPAddress}}", "10.0.1.4"),
            (
                "{{with .NetworkSettings.Networks.ch03}}{{.IPAddress}}{{end}}",
                "10.0.1.4",
            ),
            ("{{index .Tags 1}}{{index .Config.Labels \"m\"}}", "b13"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if eq .State.ExitCode 0 1}}ok{{end}}", "ok"),
            (
                "{{if eq .State.ExitCode 3}}a{{else if gt .State.Pid 10}}b{{else}}c{{end}}",
                "b",
            ),
            ("{{if and .State.Running (not .Config.Env)}}y{{end}}", "y"),
            ("{{or .Config.Env \"none\"}}", "none"),
            (
                "{{join .Tags \"/\"}} {{split \"a,b\" \",\"}}",
                "a/b/c [a b]",
            ),
            (
                "{{upper .Id}} {{lower \"ABC\"}} {{title \"over net\"}}",
                "4F1E abc Over Net",
            ),
            ("{{pad .Id 2 1}}|{{truncate .Name 3}}", "  4f1e |/we"),
            (
                "{{len .Tags}} {{len .Name}} {{printf \"%-6s|%03d|%q|%v\" .Id 7 .Id .Tags}}",
                "3 4 4f1e  |007|\"4f1e\"|[a b c]",
            ),
            ("{{.Name | printf \"%s!\" | upper}}", "/WEB!"),
            ("{{println .Id}}", "4f1e\n"),
            (
                "{{.Tags}} {{.Config.Labels}} {{.State.Running}} {{.HostConfig.NanoCpus}} {{.HostConfig.Share}}",
                "[a b c] map[a:1 m:13 z:26] true 1500000000 1.5",
            ),
            ("{{- /* said aside */ -}} x {{- \" y\" }}", "x y"),
            ("a {{- .Id -}} b", "a4f1eb"),
            (
                "{{$x := .Id}}{{range .Tags}}{{$x}}{{$.Name}}{{end}}",
                "4f1e/web4f1e/web4f1e/web",
            ),
            ("{{range .Config.Env}}x{{else}}empty{{end}}", "empty"),
            ("{{.Config.Labels.nothing}}", "<no value>"),
            ("{{slice .Name 1}} {{slice .Name 1 3}}", "web we"),
            (
                "{{range .Tags}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}",
                "a",
            ),
            (
                "{{range .Tags}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}",
                "ac",
            ),
            (
                "{{`raw`}} {{'a'}} {{1.5}} {{true}} {{nil | json}}",
                "raw 97 1.5 true null",
            ),
            (
                "{{range $i, $e := .Tags}}{{$i}}{{end}}{{print 1 2 \"x\" \"y\"}}",
                "0121 2xy",
            ),
        ];
        for (source, wanted) in cases {
            assert_eq!(render(source, &data), wanted, "{source}");
        }
    }

    #[test]
    fn errors_say_where_and_what_there_is() {
        let data = json!({"State": {"Status": "running", "Pid": 1}, "Tags": ["a"]});
        let cases = [
            (
                "{{.State.Bogus}}",
                "template error: .State.Bogus: there is no field \"Bogus\"; there are Pid, Status",
            ),
            (
                "{{.Bogus}}",
                "template error: .Bogus: there is no field \"Bogus\"; there are State, Tags",
            ),
            (
                "{{.State.status}}",
                "template error: .State.status: there is no field \"status\" (did you mean \"Status\"?); there are Pid, Status",
            ),
            (
                "{{.State",
                "template error: \"{{\" at character 1 is never closed by \"}}\"",
            ),
            ("{{if .Tags}}x", "template error: {{if}} has no {{end}}"),
            (
                "x{{end}}",
                "template error: {{end}} without {{if}}, {{range}} or {{with}} at character 2",
            ),
            (
                "{{frob .Tags}}",
                "template error: there is no function \"frob\"",
            ),
            (
                "{{index .Tags 3}}",
                "template error: index: 3 is out of range, the list has 1 entries",
            ),
            (
                "{{.Tags.Name}}",
                "template error: .Tags.Name: a list has no fields (use range or index)",
            ),
            (
                "{{\"abc}}",
                "template error: a string that begins at character 3 is not closed",
            ),
            ("{{$x}}", "template error: there is no variable $x"),
            ("{{}}", "template error: an action at character 1 is empty"),
            (
                "{{if lt .Tags 1}}{{end}}",
                "template error: lt: a list and a number cannot be compared",
            ),
        ];
        for (source, wanted) in cases {
            assert_eq!(render(source, &data), wanted, "{source}");
        }
    }

    #[test]
    fn headings_pass_through_functions() {
        let template = Template::new("{{.ID}}\t{{upper .Names}}\t{{json .Labels}}").unwrap();
        let headings = json!({"ID": "CONTAINER ID", "Names": "Names", "Labels": "LABELS"});
        assert_eq!(
            template.render_headings(&headings).unwrap(),
            "CONTAINER ID\tNames\tLABELS"
        );
    }
}
