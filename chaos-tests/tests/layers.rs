//! The layer rules: who may depend on whom, what the pure crates may never see, and where versions stand.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Dependencies inside the workspace. A crate that is not listed here has no place in the layers yet.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("faulty-disk", &[]),
    ("faulty-clock", &[]),
    ("agents", &[]),
    ("model", &[]),
    ("proto", &[]),
    ("dataplane-core", &["model"]),
    ("dataplane", &["dataplane-core", "model"]),
    (
        "node",
        &["proto", "model", "agents", "dataplane", "dataplane-core"],
    ),
    ("cli", &["proto", "model", "dataplane"]),
    (
        "chaos-tests",
        &[
            "cli",
            "dataplane",
            "dataplane-core",
            "model",
            "node",
            "proto",
        ],
    ),
    (
        "sim-node",
        &[
            "chaos-tests",
            "dataplane",
            "dataplane-core",
            "model",
            "node",
        ],
    ),
];

/// What a crate never reaches, directly or through others.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    (
        "model",
        &[
            "tokio", "openraft", "tonic", "pnet", "rustix", "libc", "rand",
        ],
    ),
    (
        "dataplane-core",
        &["tokio", "openraft", "tonic", "pnet", "rustix", "rand"],
    ),
    ("dataplane", &["openraft", "tonic"]),
];

#[test]
fn crates_depend_only_downwards() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let members: BTreeSet<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let allowed = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no place in the layers"));
        for dependency in normal(package).filter(|dependency| members.contains(dependency)) {
            assert!(
                allowed.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn pure_crates_reach_nothing_impure() {
    let metadata = metadata();
    let packages: BTreeMap<&str, Vec<&Package>> =
        metadata
            .packages
            .iter()
            .fold(BTreeMap::new(), |mut by_name, package| {
                by_name
                    .entry(package.name.as_str())
                    .or_insert_with(Vec::new)
                    .push(package);
                by_name
            });
    let resolve = metadata.resolve.as_ref().unwrap();
    for (name, forbidden) in FORBIDDEN {
        let mut reached = BTreeSet::new();
        let mut todo: Vec<_> = packages[name]
            .iter()
            .map(|package| package.id.clone())
            .collect();
        while let Some(id) = todo.pop() {
            let node = resolve.nodes.iter().find(|node| node.id == id).unwrap();
            for dependency in &node.deps {
                let normal = dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal);
                if normal && reached.insert(dependency.pkg.clone()) {
                    todo.push(dependency.pkg.clone());
                }
            }
        }
        for package in metadata
            .packages
            .iter()
            .filter(|package| reached.contains(&package.id))
        {
            assert!(
                !forbidden.contains(&package.name.as_str()),
                "{name} reaches {}",
                package.name
            );
        }
    }
}

#[test]
fn versions_stand_in_the_workspace_only() {
    for package in metadata().workspace_packages() {
        let text = std::fs::read_to_string(&package.manifest_path).unwrap();
        let mut in_dependencies = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
            } else if in_dependencies && !line.is_empty() && !line.starts_with('#') {
                let inherited = line.contains("workspace = true");
                assert!(
                    inherited,
                    "{}: `{line}` names a version of its own",
                    package.manifest_path
                );
            }
        }
    }
}

#[test]
fn pure_crates_forbid_clocks_and_hash_order_by_lint() {
    let root = metadata().workspace_root;
    for directory in ["node/model", "dataplane/core"] {
        let text = std::fs::read_to_string(root.join(directory).join("clippy.toml")).unwrap();
        for method in [
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "HashMap::iter",
        ] {
            assert!(
                text.contains(method),
                "{directory}/clippy.toml does not forbid {method}"
            );
        }
    }
}

fn metadata() -> Metadata {
    // Other platforms' dependencies of dependencies are not ours.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .other_options(["--filter-platform".to_owned(), platform])
        .exec()
        .expect("cargo metadata reads this workspace")
}

fn normal(package: &Package) -> impl Iterator<Item = &str> {
    let dependencies = package.dependencies.iter();
    dependencies
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
}
