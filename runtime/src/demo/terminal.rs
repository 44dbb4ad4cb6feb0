//! The terminal of the demo: raw keys in, whole screens out, and everything as it was afterwards.

use std::io::{IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Clears from the cursor to the end of the line; and from there to the end of the screen (ECMA-48, EL and ED).
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// A terminal in raw mode; dropping it restores what was.
pub struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal, if both ends are one.
    pub fn take() -> Option<Terminal> {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return None;
        }
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        // Keys at once and unseen; Ctrl-C stays a signal, so that the orderly end is the same everywhere.
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        // The alternate screen, without a cursor (xterm control sequences, DECSET 1049 and DECTCEM).
        write("\x1b[?1049h\x1b[?25l");
        Some(Terminal { before })
    }

    /// A key that has been pressed, if any.
    pub fn key(&self) -> Option<u8> {
        let mut byte = [0; 1];
        match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Ok(1) => byte.first().copied(),
            _ => None,
        }
    }

    /// Draws a whole screen, without flicker: lines are overwritten, not erased first.
    pub fn draw(&self, lines: &[String]) {
        // A terminal that does not know its size says 0 (tty_ioctl(4)).
        let known = |size: u16, usual: usize| if size == 0 { usual } else { usize::from(size) };
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok();
        let (rows, columns) = size.map_or((24, 80), |s| (known(s.ws_row, 24).max(4), known(s.ws_col, 80)));
        let mut screen = String::from("\x1b[H");
        for line in lines.iter().take(rows - 1) {
            screen.push_str(&cut(line, columns));
            screen.push_str(CLEAR_LINE);
            screen.push_str("\r\n");
        }
        screen.push_str(CLEAR_BELOW);
        write(&screen);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        write("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that is gone ends the demo by its signal, not here.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The first `columns` visible characters; colour sequences take no room.
fn cut(line: &str, columns: usize) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut width, mut escape) = (0, false);
    for c in line.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) if width == columns => continue,
            (false, _) => width += 1,
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn colours_take_no_room() {
        assert_eq!(cut("\x1b[1mabc\x1b[0mdef", 4), "\x1b[1mabc\x1b[0md");
        assert_eq!(cut("äöü", 2), "äö");
    }
}
