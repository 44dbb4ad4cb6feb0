//! Stands in for the crate `regex`, which libcontainer, oci-spec and oci-client ask for: the same calls, done by regex-lite.
//!
//! They match an image's reference, a CPU list and Intel RDT's lines, all of them ASCII. The real crate would put over
//! half a megabyte of engines and Unicode tables into an executable of ten, and compile an image's reference into
//! megabytes of memory. `[patch.crates-io]` in the workspace's `Cargo.toml` puts this one in its place.
#![forbid(unsafe_code)]

pub use regex_lite::{CaptureMatches, Captures, Error, Match, Matches, Regex, RegexBuilder};

#[cfg(test)]
mod tests {
    use super::*;

    /// What the crates above rely on.
    #[test]
    fn the_syntax_in_use_is_understood() {
        let reference =
            r"^((?:[a-z0-9]+(?:[._-][a-z0-9]+)*/?)+)(?::([\w][\w.-]{0,127}))?(?:@([A-Za-z]+[:][[:xdigit:]]{32,}))?$";
        let reference = RegexBuilder::new(reference).size_limit(10 * (1 << 21)).build().unwrap();
        let captures = reference.captures("quay.io/app:1.2").unwrap();
        assert_eq!((&captures[1], &captures[2], captures.get(3)), ("quay.io/app", "1.2", None));
        assert!(!reference.is_match("App:1"));
        let schema =
            Regex::new(r"^L3:(?:\s|;)*(?:\w+\s*=\s*[[:xdigit:]]+)?(?:(?:\s*;+\s*)+\w+\s*=\s*[[:xdigit:]]+)*(?:\s|;)*$");
        assert!(schema.unwrap().is_match("L3:0=ff;1=0f"));
        let token = Regex::new(r"(\w+)\s*=\s*0*([[:xdigit:]]+)").unwrap();
        let tokens: Vec<&str> = token.captures_iter("0=00ff;1=f").filter_map(|c| Some(c.get(2)?.as_str())).collect();
        assert_eq!(tokens, ["ff", "f"]);
    }
}
