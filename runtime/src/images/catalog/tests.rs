use super::*;

fn record(seed: &str) -> Record {
    Record {
        manifest: Digest::of(format!("{seed} manifest")),
        manifest_type: String::new(),
        layers: vec![LayerRecord {
            chain: Digest::of(format!("{seed} layer")),
            blob: Digest::of(format!("{seed} blob")),
            media_type: String::new(),
            blob_size: 1,
        }],
        size: 1,
        last_tagged: 0,
    }
}

/// Images by seed, each with the names after it.
fn catalog(images: &[(&str, &[&str])]) -> Catalog {
    let mut catalog = Catalog::default();
    for (seed, names) in images {
        let id = Digest::of(seed);
        catalog.images.insert(id.clone(), record(seed));
        for name in *names {
            catalog.name(&name.parse().unwrap(), &id);
        }
    }
    catalog
}

fn with_digest(name: &str) -> String {
    format!("{name}@{}", Digest::of("index"))
}

#[test]
fn images_are_found_as_docker_finds_them() {
    let catalog = catalog(&[(
        "a",
        &["busybox:latest", "me/app:v1", &with_digest("busybox")],
    )]);
    let id = Digest::of("a");
    let (full, short, hex) = (id.to_string(), id.short().to_owned(), id.hex().to_owned());
    let by_digest = with_digest("busybox");
    let tag_and_digest = with_digest("busybox:other");
    for text in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "me/app:v1",
        full.as_str(),
        short.as_str(),
        hex.as_str(),
        &full[..15],
        by_digest.as_str(),
        tag_and_digest.as_str(),
    ] {
        assert_eq!(
            catalog.find(text).map(|found| found.id().clone()),
            Ok(id.clone()),
            "{text}"
        );
    }
    for (text, sentence) in [
        ("me/app", "No such image: me/app:latest"),
        ("nothing:x", "No such image: nothing:x"),
        ("UPPER", "No such image: UPPER"),
        ("", "No such image: "),
    ] {
        assert_eq!(
            catalog.find(text),
            Err(Refusal::not_found(sentence)),
            "{text}"
        );
    }
}

#[test]
fn an_ambiguous_id_is_refused() {
    let mut catalog = Catalog::default();
    for tail in ["0", "1"] {
        let id: Digest = format!("sha256:{}{tail}", "a".repeat(63)).parse().unwrap();
        catalog.images.insert(id, record(tail));
    }
    assert!(
        catalog
            .find("aaaa")
            .unwrap_err()
            .message
            .contains("ambiguous")
    );
}

fn unused(_: &Digest) -> Vec<Use> {
    Vec::new()
}

fn used(running: bool) -> impl Fn(&Digest) -> Vec<Use> {
    move |_| {
        vec![Use {
            container: "c0ffee".into(),
            running,
        }]
    }
}

#[test]
fn the_last_name_takes_the_image_with_it() {
    let mut catalog = catalog(&[("a", &["x:1", "x:2", &with_digest("x")])]);
    let untagged = |text: &str| Removed::Untagged(text.into());
    assert_eq!(
        catalog.remove("x:1", false, &unused),
        Ok(vec![untagged("x:1")])
    );
    assert_eq!(
        catalog.remove("x:2", false, &unused),
        Ok(vec![
            untagged("x:2"),
            untagged(&with_digest("x")),
            Removed::Deleted(Digest::of("a").to_string())
        ])
    );
    assert_eq!(catalog, Catalog::default());
}

#[test]
fn used_images_are_kept() {
    let names: &[(&str, &[&str])] = &[("a", &["x:1"])];
    let id = Digest::of("a").to_string();
    for (text, running, force, reason) in [
        ("x:1", false, false, "must force"),
        ("x:1", true, false, "must force"),
        (id.as_str(), true, true, "cannot be forced"),
        (id.as_str(), false, false, "stopped container c0ffee"),
    ] {
        let mut catalog = catalog(names);
        let refusal = catalog.remove(text, force, &used(running)).unwrap_err();
        assert!(
            refusal.message.contains(reason),
            "{text} {running} {force}: {refusal}"
        );
        assert_eq!(catalog, self::catalog(names));
    }
    let mut forced = catalog(names);
    assert_eq!(
        forced.remove("x:1", true, &used(true)),
        Ok(vec![Removed::Untagged("x:1".into())])
    );
    assert_eq!(forced.images.len(), 1);
}

#[test]
fn an_id_with_names_in_two_repositories_needs_force() {
    let mut catalog = catalog(&[("a", &["x:1", "y:1"]), ("b", &["z:1"])]);
    let id = Digest::of("a").to_string();
    let refusal = catalog.remove(&id, false, &unused).unwrap_err();
    assert!(
        refusal.message.contains("multiple repositories"),
        "{refusal}"
    );
    assert_eq!(catalog.remove(&id, true, &unused).unwrap().len(), 3);
    assert_eq!(catalog.tags.len(), 1);
}

#[test]
fn what_images_need_is_wanted() {
    let (blobs, layers) = catalog(&[("a", &[])]).wanted();
    let of = |text: &str| Digest::of(text);
    assert_eq!(blobs, [of("a"), of("a manifest"), of("a blob")].into());
    assert_eq!(layers, [of("a layer")].into());
}
