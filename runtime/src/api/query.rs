//! Query strings and selectors of requests.

use edge_model::Object;
use serde_json::Value;

/// The parameters of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query string apart. Nothing is an error: what is no `name=value` is a name without a value.
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Query(pairs.collect())
    }

    /// The first value of a parameter; empty values count as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Whether a parameter is there and not `false` or `0`.
    pub fn is(&self, name: &str) -> bool {
        self.0.iter().any(|(n, v)| n == name && !matches!(v.as_str(), "false" | "0" | "False"))
    }

    /// A parameter as a number.
    ///
    /// # Errors
    /// A sentence when it is not one.
    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let parse = |v: &str| v.parse().map_err(|_| format!("{name}: {v:?} is not a number"));
        self.get(name).map(parse).transpose()
    }
}

/// Percent-decodes (RFC 3986, section 2.1). What is not a valid escape stays; what is not UTF-8 is replaced.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(h, l)| h << 4 | l),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3).
pub fn encode(text: &str) -> String {
    edge_model::percent::encode(text, edge_model::percent::is_unreserved)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// A label or field selector: every term must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, Test)>,
}

/// Fields that can be selected by; the others would silently select nothing, so they are refused.
const FIELDS: [&str; 14] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "status.phase",
    "type",
    "reason",
    "source.component",
    "reportingComponent",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "involvedObject.apiVersion",
];

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// A sentence naming the term that is not understood.
    pub fn parse(query: &Query) -> Result<Selector, String> {
        let labels = terms(query.get("labelSelector").unwrap_or_default())?;
        let fields = terms(query.get("fieldSelector").unwrap_or_default())?;
        for (field, test) in &fields {
            if !FIELDS.contains(&field.as_str()) {
                return Err(format!("field label not supported: {field}; known: {}", FIELDS.join(", ")));
            }
            if matches!(test, Test::Exists | Test::Absent) {
                return Err(format!("fieldSelector: {field} needs = or != and a value"));
            }
        }
        Ok(Selector { labels, fields })
    }

    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|(key, test)| holds(test, object.metadata.labels.get(key).map(String::as_str)))
            && self.fields.iter().all(|(path, test)| holds(test, Some(field(object, path).unwrap_or_default())))
    }
}

fn holds(test: &Test, value: Option<&str>) -> bool {
    match test {
        Test::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
        Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
        Test::Exists => value.is_some(),
        Test::Absent => value.is_none(),
    }
}

fn field<'a>(object: &'a Object, path: &str) -> Option<&'a str> {
    match path {
        "metadata.name" => Some(&object.metadata.name),
        "metadata.namespace" => Some(&object.metadata.namespace),
        _ => {
            let mut steps = path.split('.');
            let first = object.fields.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.get(step)).and_then(Value::as_str)
        }
    }
}

/// `a=b,c!=d,e in (f,g),h notin (i),j,!k` (Kubernetes, "Labels and Selectors").
fn terms(text: &str) -> Result<Vec<(String, Test)>, String> {
    let mut terms = Vec::new();
    let mut depth = 0_u32;
    for term in text.split(|c| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        c == ',' && depth == 0
    }) {
        let term = term.trim();
        if !term.is_empty() {
            terms.push(parse_term(term)?);
        }
    }
    Ok(terms)
}

fn parse_term(term: &str) -> Result<(String, Test), String> {
    let one = |v: &str| vec![v.trim().to_owned()];
    let set = |v: &str| -> Option<Vec<String>> {
        let inner = v.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|v| v.trim().to_owned()).collect())
    };
    let (key, test) = if let Some((key, values)) = term.split_once(" notin ") {
        (key, set(values).map(Test::NotIn))
    } else if let Some((key, values)) = term.split_once(" in ") {
        (key, set(values).map(Test::In))
    } else if let Some((key, value)) = term.split_once("!=") {
        (key, Some(Test::NotIn(one(value))))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Some(Test::In(one(value))))
    } else if let Some(key) = term.strip_prefix('!') {
        (key, Some(Test::Absent))
    } else {
        (term, Some(Test::Exists))
    };
    let key = key.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match test {
        Some(test) if !key.is_empty() && key.chars().all(plain) => Ok((key.to_owned(), test)),
        _ => Err(format!("the selector {term:?} is not understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::Kind;
    use serde_json::json;

    #[test]
    fn selectors_select() {
        let mut pod = Object::new(Kind::Pod, "plant", "web", json!({}));
        pod.metadata.labels.insert("app".into(), "web".into());
        pod.set_status(json!({"phase": "Running"}));
        let cases = [
            ("", "", true),
            ("app=web", "", true),
            ("app==web,tier!=x", "", true),
            ("app in (api, web),!tier", "", true),
            ("app notin (api)", "", true),
            ("tier", "", false),
            ("app=api", "", false),
            ("", "metadata.name=web,metadata.namespace!=default", true),
            ("", "status.phase=Running", true),
            ("", "involvedObject.name=x", false),
        ];
        for (labels, fields, expected) in cases {
            let query = Query(vec![("labelSelector".into(), labels.into()), ("fieldSelector".into(), fields.into())]);
            assert_eq!(Selector::parse(&query).unwrap().matches(&pod), expected, "{labels} {fields}");
        }
        for bad in
            ["labelSelector=a b", "labelSelector=x in a", "fieldSelector=spec.x=1", "fieldSelector=metadata.name"]
        {
            assert!(Selector::parse(&Query::parse(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("a=b%20c&watch&limit=5&x=%zz%4&e=&n=x+y");
        assert_eq!(query.get("a"), Some("b c"));
        assert_eq!(query.get("n"), Some("x y"));
        assert!(query.is("watch") && !query.is("follow"));
        assert_eq!(query.number("limit"), Ok(Some(5)));
        assert!(query.number("a").is_err());
        assert_eq!((query.get("x"), query.get("e")), (Some("%zz%4"), None));
        let all: String = (0..=255_u8).map(char::from).collect();
        assert_eq!(decode(&encode(&all)), all);
    }
}
