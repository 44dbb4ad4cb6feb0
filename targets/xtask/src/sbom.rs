//! The bill of materials: which crates and C libraries are in an executable, as CycloneDX 1.5 in JSON.
//!
//! Source: CycloneDX specification 1.5, "Bom", "Component", "Dependency". It has neither a time nor a random serial number:
//! the same sources give the same file.

use serde_json::{Value, json};

use crate::graph::Crate;
use crate::target::Target;

/// The document for an executable with this SHA-256.
pub fn document(target: &Target, crates: &[Crate], sha256: &str, libc: Option<&str>) -> Value {
    let (own, rest) = crates.split_at(1.min(crates.len()));
    let mut main = own.first().map(component).unwrap_or_default();
    main["type"] = json!("application");
    main["hashes"] = json!([{"alg": "SHA-256", "content": sha256}]);
    main["properties"] = json!([{"name": "target", "value": target.triple}]);
    let mut components: Vec<Value> = rest.iter().map(component).collect();
    let mut dependencies: Vec<Value> = crates
        .iter()
        .map(|c| {
            let on: Vec<String> = c.depends_on.iter().filter_map(|i| crates.get(*i)).map(Crate::purl).collect();
            json!({"ref": c.purl(), "dependsOn": on})
        })
        .collect();
    if let Some(version) = libc {
        let purl = format!("pkg:generic/glibc@{version}");
        components.push(json!({
            "type": "library", "bom-ref": purl, "name": "glibc", "version": version, "purl": purl,
            "licenses": [{"license": {"id": "LGPL-2.1-or-later"}}],
        }));
        dependencies.push(json!({"ref": purl, "dependsOn": []}));
        if let Some(on) = dependencies.first_mut().and_then(|d| d["dependsOn"].as_array_mut()) {
            on.push(json!(purl));
        }
    }
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(c: &Crate) -> Value {
    let mut component = json!({
        "type": "library", "bom-ref": c.purl(), "name": c.name, "version": c.version, "purl": c.purl(), "scope": "required",
    });
    component["licenses"] = match &c.license {
        // Cargo still allows "A/B" for "A OR B" (the manifest format, "license").
        Some(license) => json!([{"expression": license.replace('/', " OR ")}]),
        None => {
            let file = c.license_file.as_deref().unwrap_or("LICENSE");
            json!([{"license": {"name": format!("the file {file} of the crate")}}])
        }
    };
    if let Some(sum) = &c.checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    }
    if let Some(repository) = &c.repository {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

/// The version of the C library in a static executable, from what glibc writes into each.
pub fn libc_version(binary: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"GNU C Library (";
    let at = binary.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let text: Vec<u8> = binary.get(at..)?.iter().copied().take(80).take_while(|b| *b != b')').collect();
    let text = String::from_utf8(text).ok()?;
    Some(text.rsplit(' ').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph, target};

    #[test]
    fn every_reference_is_a_component() {
        let target = target::chosen(&["--target=x86_64-unknown-linux-gnu".to_owned()]).unwrap().remove(0);
        let crates = graph::of(&target).unwrap();
        let bom = document(&target, &crates, "00", Some("2.36-9"));
        let mut known: Vec<&str> =
            bom["components"].as_array().unwrap().iter().map(|c| c["bom-ref"].as_str().unwrap()).collect();
        known.push(bom["metadata"]["component"]["bom-ref"].as_str().unwrap());
        let unique: std::collections::BTreeSet<&str> = known.iter().copied().collect();
        assert_eq!(unique.len(), known.len(), "references are unique");
        for dependency in bom["dependencies"].as_array().unwrap() {
            for on in dependency["dependsOn"].as_array().unwrap() {
                assert!(unique.contains(on.as_str().unwrap()), "{on}");
            }
        }
        assert!(
            bom["components"].as_array().unwrap().iter().all(|c| c["licenses"][0].is_object()),
            "every licence is known"
        );
    }

    #[test]
    fn the_c_library_says_its_version() {
        let text = b"x\0GNU C Library (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.\n";
        assert_eq!(libc_version(text).as_deref(), Some("2.36-9+deb12u13"));
        assert_eq!(libc_version(b"musl"), None);
    }
}
