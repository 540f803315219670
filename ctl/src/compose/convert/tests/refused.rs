//! What is refused, and what is warned about.

use super::run;

#[test]
fn what_is_wrong_is_refused() {
    let cases = [
        ("services: {}", "there is no service in it"),
        ("services: {w: }", "image is missing"),
        ("services: {w: {build: .}}", "push it to a registry"),
        ("services: {w: {image: 'UPPER'}}", "must be lowercase"),
        ("services: {'a b': {image: x}}", "is no name of a service"),
        (
            "services: {w: {image: x, networks: [frnt]}}\nnetworks: {front: }",
            "the network \"frnt\" is not defined",
        ),
        (
            "services: {w: {image: x, networks: [frnt]}}\nnetworks: {front: }",
            "did you mean front?",
        ),
        (
            "services: {w: {image: x, volumes: ['dta:/x']}}\nvolumes: {data: }",
            "did you mean data?",
        ),
        (
            "services: {w: {image: x, secrets: [t]}}",
            "add t under the top-level key secrets",
        ),
        (
            "services: {w: {image: x, ports: ['80-82:80-81']}}",
            "the ranges 80-82 and 80-81 differ in length",
        ),
        (
            "services: {w: {image: x, ports: ['99999:80']}}",
            "\"99999\" is no port",
        ),
        (
            "services: {w: {image: x, ports: ['80:80/icmp']}}",
            "none of tcp, udp, sctp",
        ),
        (
            "services: {w: {image: x, ports: ['80:80']}, v: {image: x, ports: ['80:81']}}",
            "port 80/tcp is published twice",
        ),
        (
            "services: {w: {image: x, ports: ['80:80'], deploy: {endpoint_mode: dnsrr}}}",
            "cannot be published with endpoint_mode: dnsrr",
        ),
        (
            "services: {w: {image: x, deploy: {mode: global, replicas: 2}}}",
            "replicas have no meaning with mode: global",
        ),
        (
            "services: {w: {image: x, deploy: {placement: {constraints: [node.role = manager]}}}}",
            "is no constraint",
        ),
        (
            "services: {w: {image: x, restart: sometimes}}",
            "no restart policy",
        ),
        (
            "services: {w: {image: x, volumes: ['a:b:c:d']}}",
            "too many colons",
        ),
        (
            "services: {w: {image: x, volumes: ['/a:b']}}",
            "must be an absolute path",
        ),
        (
            "services: {w: {image: x, volumes: ['/a:/x', '/b:/x']}}",
            "two mounts have the target \"/x\"",
        ),
        (
            "services: {w: {image: x, depends_on: [ap]}, api: {image: x}}",
            "did you mean api?",
        ),
        (
            "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}",
            "wait for one another: a -> b -> a",
        ),
        (
            "services: {a: {image: x, depends_on: [b]}, b: {image: x, profiles: [p]}}",
            "none of its profiles is active",
        ),
        (
            "services: {w: {image: x, env_file: no.env}}",
            "cannot read /p/no.env",
        ),
        (
            "services: {w: {image: x, healthcheck: {test: [curl, x]}}}",
            "begin it with NONE, CMD or CMD-SHELL",
        ),
        (
            "services: {w: {image: x, extra_hosts: ['a:b']}}",
            "\"b\" is no IP address",
        ),
        (
            "services: {w: {image: x, command: \"a 'b\"}}",
            "is not closed",
        ),
        (
            "services: {w: {image: x, deploy: {resources: {limits: {cpus: 1e3}}}}}",
            "not a number of CPUs",
        ),
        (
            "services: {w: {image: x}}\nsecrets: {t: {environment: NOPE}}",
            "the variable NOPE is not set",
        ),
        (
            "services: {w: {image: x}}\nsecrets: {t: {file: ./nope}}",
            "cannot read /p/nope",
        ),
        (
            "services: {w: {image: x}}\nconfigs: {t: {file: ./empty}}",
            "the config is empty",
        ),
        (
            "services: {w: {image: x}}\nconfigs: {t: {}}",
            "has no content",
        ),
        (
            "services: {w: {image: x}}\nconfigs: {t: {file: a, content: b}}",
            "exclude one another",
        ),
        (
            "services: {w: {image: x, network_mode: host, networks: [a]}}\nnetworks: {a: }",
            "exclude one another",
        ),
    ];
    for (text, wanted) in cases {
        let said = run(text).0.map(|s| s.name).unwrap_err();
        assert!(said.contains(wanted), "{text}\n{said}");
    }
    let long = format!("services: {{{}: {{image: x}}}}", "n".repeat(62));
    assert!(run(&long).0.unwrap_err().contains("63 are the limit"));
}

#[test]
fn what_has_no_meaning_is_warned_about() {
    let cases = [
        (
            "services: {w: {image: x, ports: ['127.0.0.1:80:80']}}",
            "the address 127.0.0.1 is ignored",
        ),
        (
            "services: {w: {image: x, security_opt: ['label:disable']}}",
            "services.w.security_opt: label=disable is ignored",
        ),
        (
            "services: {w: {image: x, network_mode: 'service:a'}}",
            "services.w.network_mode is ignored",
        ),
        (
            "services: {w: {image: x, volumes: ['/a:/b:z']}}",
            "the option z is ignored",
        ),
        (
            "services: {w: {image: x, platform: linux/arm/v7}}",
            "the variant of linux/arm/v7 is ignored",
        ),
        (
            "services: {w: {image: x, depends_on: {a: {condition: service_started, required: false}}}}",
            "a is not waited for",
        ),
        (
            "name: other\nservices: {w: {image: x}}",
            "name: the stack is deployed as \"s\", not as \"other\"",
        ),
        (
            "services: {w: {image: x}, m: {provider: {type: model}}}",
            "services.m.provider is ignored",
        ),
        (
            "services: {w: {image: x}}\nnetworks: {n: }",
            "networks.n is not created: no service uses it",
        ),
        (
            "services: {w: {image: x, networks: [n], networks: [n]}}\nnetworks: {n: }",
            "the key \"networks\" is written twice with the same value",
        ),
    ];
    for (text, wanted) in cases {
        let (stack, warnings) = run(text);
        assert!(stack.is_ok(), "{text}: {stack:?}");
        assert!(
            warnings.iter().any(|w| w.contains(wanted)),
            "{text}\n{warnings:?}"
        );
        assert!(
            warnings.iter().all(|w| w.starts_with("stdin:")),
            "{warnings:?}"
        );
    }
}
