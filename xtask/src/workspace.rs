//! What the workspace consists of, as cargo says it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::step::{cargo, output_of};

/// One member of the workspace.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Whether it goes to the registry.
    pub(crate) published: bool,
    /// Whether it has a library, and so doc tests.
    pub(crate) library: bool,
    /// Its examples, by name.
    pub(crate) examples: Vec<String>,
    /// Its features but `default`.
    pub(crate) features: Vec<String>,
    /// The version requirements of its dependencies within the workspace.
    pub(crate) within: Vec<(String, String)>,
}

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where tools are kept between clones: `$ANNALS_CACHE`, or `annals` in the user's cache folder.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("ANNALS_CACHE") {
        return Ok(cache.into());
    }
    let home = std::env::var_os("HOME").context("set ANNALS_CACHE or HOME")?;
    Ok(Path::new(&home).join(".cache/annals"))
}

/// Every member, in cargo's order.
pub(crate) fn members() -> Result<Vec<Member>> {
    let said = output_of(&mut cargo([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
    ]))?;
    let said: Value = serde_json::from_str(&said)?;
    list(&said, "packages").iter().map(member).collect()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text(value: &Value, field: &str) -> Result<String> {
    let text = value.get(field).and_then(Value::as_str);
    Ok(text
        .with_context(|| format!("cargo metadata has no {field}"))?
        .to_owned())
}

/// The targets of a package that are of this kind.
fn targets<'a>(package: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    list(package, "targets")
        .iter()
        .filter(move |target| list(target, "kind").iter().any(|k| k == kind))
}

fn member(package: &Value) -> Result<Member> {
    let within = list(package, "dependencies")
        .iter()
        .filter(|dependency| dependency.get("path").is_some_and(Value::is_string))
        .map(|dependency| Ok((text(dependency, "name")?, text(dependency, "req")?)));
    let features = package.get("features").and_then(Value::as_object);
    Ok(Member {
        name: text(package, "name")?,
        version: text(package, "version")?,
        // `publish = false` is an empty list of registries; null is all of them.
        published: package.get("publish").is_none_or(Value::is_null),
        library: targets(package, "lib").next().is_some(),
        examples: targets(package, "example")
            .map(|target| text(target, "name"))
            .collect::<Result<_>>()?,
        features: features
            .into_iter()
            .flat_map(serde_json::Map::keys)
            .filter(|name| *name != "default")
            .cloned()
            .collect(),
        within: within.collect::<Result<_>>()?,
    })
}
