//! Changes to an object as Kubernetes' clients send them: JSON merge patch, JSON patch, strategic merge patch.

use serde_json::{Map, Value};

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is not a patch of this type.
    #[error("not a {kind}: {reason}")]
    Malformed {
        /// The type of patch.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A `test` failed or a path is not there (RFC 6902).
    #[error("the patch does not fit the object: {0}")]
    DoesNotFit(String),
}

/// Applies a JSON merge patch (RFC 7386): mappings are merged, null removes, anything else replaces.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let Some(map) = as_map(target) else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Applies a JSON patch (RFC 6902): all of it or nothing.
///
/// # Errors
/// [`PatchError`].
pub fn json_patch(target: &mut Value, patch: Value) -> Result<(), PatchError> {
    let patch: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|e| PatchError::Malformed { kind: "JSON patch (RFC 6902)", reason: e.to_string() })?;
    json_patch::patch(target, &patch).map_err(|e| PatchError::DoesNotFit(e.to_string()))
}

/// By which field Kubernetes tells the items of a list apart (`patchMergeKey` in its API types). Other lists are replaced.
fn merge_key(field: &str) -> Option<&'static str> {
    Some(match field {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" | "podIPs" => "ip",
        "conditions" | "addresses" => "type",
        "topologySpreadConstraints" => "topologyKey",
        _ => return None,
    })
}

/// Applies a strategic merge patch: like a merge patch, but lists of named things are merged item by item, with the
/// directives `$patch`, `$deleteFromPrimitiveList`, `$setElementOrder` and `$retainKeys`.
///
/// Source: Kubernetes, "Strategic Merge Patch" (sig-api-machinery).
///
/// # Errors
/// [`PatchError::Malformed`] for an unknown directive or an item without its key.
pub fn strategic(target: &mut Value, patch: Value) -> Result<(), PatchError> {
    match patch {
        Value::Object(patch) => as_map(target).map_or(Ok(()), |map| strategic_map(map, patch)),
        other => {
            *target = other;
            Ok(())
        }
    }
}

fn malformed(reason: impl Into<String>) -> PatchError {
    PatchError::Malformed { kind: "strategic merge patch", reason: reason.into() }
}

fn strategic_map(map: &mut Map<String, Value>, mut patch: Map<String, Value>) -> Result<(), PatchError> {
    match patch.remove("$patch").as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => map.clear(),
        Some(Some("delete")) => {
            map.clear();
            return Ok(());
        }
        Some(_) => return Err(malformed("$patch must be merge, replace or delete")),
    }
    if let Some(keep) = patch.remove("$retainKeys") {
        let keep = keep.as_array().cloned().ok_or_else(|| malformed("$retainKeys must be a list"))?;
        map.retain(|key, _| keep.iter().any(|k| k == key));
    }
    let mut orders = Vec::new();
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().ok_or_else(|| malformed(format!("{key} must be a list")))?;
            if let Some(Value::Array(items)) = map.get_mut(field) {
                items.retain(|item| !gone.contains(item));
            }
        } else if let Some(field) = key.strip_prefix("$setElementOrder/") {
            let order = value.as_array().cloned().ok_or_else(|| malformed(format!("{key} must be a list")))?;
            orders.push((field.to_owned(), order));
        } else if key.starts_with('$') {
            return Err(malformed(format!("unknown directive {key}")));
        } else if value.is_null() {
            map.remove(&key);
        } else if let (Some(by), Value::Array(_)) = (merge_key(&key), &value) {
            if let (Value::Array(items), Some(list)) = (value, as_list(map.entry(key).or_insert(Value::Null))) {
                strategic_list(list, items, by)?;
            }
        } else {
            strategic(map.entry(key).or_insert(Value::Null), value)?;
        }
    }
    for (field, order) in orders {
        if let Some(Value::Array(items)) = map.get_mut(&field) {
            reorder(items, &order, merge_key(&field));
        }
    }
    Ok(())
}

fn strategic_list(items: &mut Vec<Value>, patch: Vec<Value>, by: &str) -> Result<(), PatchError> {
    if patch.iter().any(|p| p.get("$patch").and_then(Value::as_str) == Some("replace")) {
        *items = patch.into_iter().filter(|p| p.get("$patch").is_none()).collect();
        return Ok(());
    }
    for change in patch {
        let name = change.get(by).cloned().ok_or_else(|| malformed(format!("an item of a list lacks its key {by}")))?;
        let place = items.iter().position(|item| item.get(by) == Some(&name));
        let deletes = change.get("$patch").and_then(Value::as_str) == Some("delete");
        match place.and_then(|at| items.get_mut(at)) {
            Some(_) if deletes => items.retain(|item| item.get(by) != Some(&name)),
            Some(item) => strategic(item, change)?,
            None if deletes => {}
            None => {
                let mut item = Value::Null;
                strategic(&mut item, change)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

/// Sorts by the given order; items it does not name keep their place behind.
fn reorder(items: &mut [Value], order: &[Value], by: Option<&str>) {
    let identity = |v: &Value| by.and_then(|by| v.get(by)).unwrap_or(v).clone();
    let order: Vec<Value> = order.iter().map(identity).collect();
    items.sort_by_key(|item| order.iter().position(|o| *o == identity(item)).unwrap_or(usize::MAX));
}

/// The value as a mapping; whatever else it was is replaced by an empty one.
fn as_map(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The value as a list; whatever else it was is replaced by an empty one.
fn as_list(value: &mut Value) -> Option<&mut Vec<Value>> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patch_examples_of_rfc_7386() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, expected) in cases {
            let shown = format!("{target} {patch}");
            merge(&mut target, patch);
            assert_eq!(target, expected, "{shown}");
        }
    }

    #[test]
    fn json_patch_is_all_or_nothing() {
        let mut target = json!({"a": [1]});
        json_patch(&mut target, json!([{"op": "add", "path": "/a/-", "value": 2}])).unwrap();
        assert_eq!(target, json!({"a": [1, 2]}));
        let patch = json!([{"op": "remove", "path": "/a/0"}, {"op": "test", "path": "/a/0", "value": 9}]);
        assert!(matches!(json_patch(&mut target, patch), Err(PatchError::DoesNotFit(_))));
        assert_eq!(target, json!({"a": [1, 2]}));
        assert!(matches!(json_patch(&mut target, json!({"op": "add"})), Err(PatchError::Malformed { .. })));
    }

    #[test]
    fn containers_are_merged_by_name() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "args": ["1"], "env": [{"name": "K", "value": "1"}]},
            {"name": "b", "image": "y"}]}});
        let patch = json!({"spec": {"containers": [
            {"name": "a", "image": "z", "args": ["2", "3"], "env": [{"name": "L", "value": "2"}]},
            {"name": "b", "$patch": "delete"},
            {"name": "c", "image": "w"}],
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}});
        strategic(&mut pod, patch).unwrap();
        let expected = json!({"spec": {"containers": [
            {"name": "c", "image": "w"},
            {"name": "a", "image": "z", "args": ["2", "3"],
             "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]}]}});
        assert_eq!(pod, expected);
        assert!(strategic(&mut pod, json!({"spec": {"containers": [{"image": "x"}]}})).is_err());
        assert!(strategic(&mut pod, json!({"$other": 1})).is_err());
        strategic(&mut pod, json!({"spec": {"$patch": "replace", "x": 1}})).unwrap();
        assert_eq!(pod, json!({"spec": {"x": 1}}));
    }
}
