//! The repository's own files as text, for the tests that hold it to its rules.

use std::path::{Path, PathBuf};

use crate::binary::root;

/// Folders that are not part of the repository.
const OUTSIDE: [&str; 5] = [".git", ".cache", "target", "__pycache__", "node_modules"];

/// A text file of the repository.
#[derive(Debug, Clone)]
pub struct Text {
    /// Its path from the root, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

impl Text {
    /// The file's lines of product code, with their numbers: comments are gone, and so is everything in a test module.
    pub fn code(&self) -> Vec<(usize, &str)> {
        if self.is_test() {
            return Vec::new();
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let mut code = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            // By convention the tests stand last; a mere `mod tests;` names their file.
            let next = lines.get(index + 1).map_or("", |next| next.trim());
            if line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
                break;
            }
            let kept = without_comment(line);
            if !kept.trim().is_empty() {
                code.push((index + 1, kept));
            }
        }
        code
    }

    /// Whether the whole file is a test.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        let folders = ["tests/", "mappers/tests/", "runtime/tests/"];
        name == "tests.rs"
            || name.ends_with("_tests.rs")
            || self.path.contains("/tests/")
            || folders.iter().any(|folder| self.path.starts_with(folder))
    }
}

/// A line up to its `//`, unless that stands in a string (as in an address).
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut last = ' ';
    for (index, c) in line.char_indices() {
        match c {
            '"' if last != '\\' && last != '\'' => quoted = !quoted,
            '/' if last == '/' && !quoted => return line.get(..index - 1).unwrap_or(""),
            _ => {}
        }
        last = if last == '\\' && c == '\\' { ' ' } else { c };
    }
    line
}

/// Every text file of the repository.
pub fn all() -> Vec<Text> {
    let mut files = Vec::new();
    walk(root(), &mut files);
    files.sort();
    files.into_iter().filter_map(|path| text(&path)).collect()
}

/// Those whose path ends with `suffix`.
pub fn ending(suffix: &str) -> Vec<Text> {
    all().into_iter().filter(|file| file.path.ends_with(suffix)).collect()
}

/// The sources of the product: the packages that are in the executable.
pub fn product() -> Vec<Text> {
    let folders = ["runtime/src/", "runtime/model/src/", "mappers/src/"];
    ending(".rs").into_iter().filter(|file| folders.iter().any(|folder| file.path.starts_with(folder))).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        // In a work tree `.git` is a file.
        if OUTSIDE.iter().any(|outside| name == *outside) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, files),
            Ok(kind) if kind.is_file() => files.push(path),
            _ => {}
        }
    }
}

fn text(path: &Path) -> Option<Text> {
    let relative = path.strip_prefix(root()).ok()?.to_str()?.to_owned();
    Some(Text { path: relative, text: std::fs::read_to_string(path).ok()? })
}

/// What stands before and after the first `word` in `line` that is a word of its own.
pub fn around_word<'a>(line: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(at) = line.get(from..)?.find(word) {
        let (start, end) = (from + at, from + at + word.len());
        let (before, after) = (line.get(..start)?, line.get(end..)?);
        if !before.ends_with(part) && !after.starts_with(part) {
            return Some((before, after));
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_without_comments_and_tests() {
        let text =
            "//! Why.\nlet a = \"http://b\"; // said\n/// Doc\nfn f() {}\n#[cfg(test)]\nmod tests {\n    no();\n}\n";
        let file = Text { path: "runtime/src/a.rs".to_owned(), text: text.to_owned() };
        assert_eq!(file.code(), [(2, "let a = \"http://b\"; "), (4, "fn f() {}")]);
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(around_word("tokio_rustls::x", "rustls"), None);
        assert_eq!(around_word("use rustls::x", "rustls"), Some(("use ", "::x")));
        assert_eq!(around_word("rustls_pki::a rustls::b", "rustls"), Some(("rustls_pki::a ", "::b")));
    }
}
