//! Prints JSON values as YAML the way `kubectl get -o yaml` does: keys sorted, lists not indented, quotes only where needed.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::scalar;

/// The value as a YAML document, which reads back as the same value.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => print_map(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => print_list(&mut out, items, 0),
        scalar => {
            print_scalar(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn print_map(out: &mut String, map: &Map<String, Value>, depth: usize) {
    for (index, (key, value)) in map.iter().enumerate() {
        // The first key stands behind the dash of a list, or at the start of a line that the caller has indented.
        if index > 0 {
            indent(out, depth);
        }
        print_string(out, key, None);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(out, depth + 1);
                print_map(out, inner, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(out, depth);
                print_list(out, items, depth);
            }
            scalar => {
                out.push(' ');
                print_scalar(out, scalar, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn print_list(out: &mut String, items: &[Value], depth: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => print_map(out, map, depth + 1),
            Value::Array(inner) if !inner.is_empty() => print_list(out, inner, depth + 1),
            scalar => {
                print_scalar(out, scalar, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn print_scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(text) => print_string(out, text, Some(depth)),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        // Numbers, booleans and null are spelled as in JSON.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// `block` is the depth for a literal block, where one is allowed.
fn print_string(out: &mut String, text: &str, block: Option<usize>) {
    if is_plain(text) {
        return out.push_str(text);
    }
    match block {
        Some(depth) if is_literal(text) => {
            // Kept line ends tell apart `a`, `a\n` and `a\n\n`.
            let body = text.trim_end_matches('\n');
            out.push_str(match text.len() - body.len() {
                0 => "|-",
                1 => "|",
                _ => "|+",
            });
            let lines = text.strip_suffix('\n').unwrap_or(text);
            for line in lines.split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    indent(out, depth);
                    out.push_str(line);
                }
            }
        }
        _ => print_quoted(out, text),
    }
}

/// Whether the text can stand as it is and will be read back as text.
fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return false };
    // Readers of YAML 1.1 take 12:30:45 for a number and 2026-11-30 for a time.
    let looks_like_time = first.is_ascii_digit() && (text.contains(':') || text.as_bytes().get(4) == Some(&b'-'));
    (first.is_alphanumeric() || matches!(first, '_' | '/' | '.' | '$' | '('))
        && !looks_like_time
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| c.is_alphanumeric() || (c.is_ascii() && !c.is_ascii_control()))
        && !scalar::is_special(text)
}

/// Whether the text has several lines and can be a literal block.
fn is_literal(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || !needs_escape(c))
        && text.lines().all(|line| line.trim() == "" && line.is_empty() || line.trim() != "")
}

/// Characters that YAML readers may not take literally: controls, separators, marks that cannot be seen.
fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn print_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if needs_escape(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
