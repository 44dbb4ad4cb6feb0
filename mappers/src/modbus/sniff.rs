//! Frames in what a serial line carries, for somebody who only listens. Pure.
//!
//! Gaps between frames are lost in the kernel's buffers, so frames are found by their check sums: wherever a frame of the
//! length its function says, or of any length, has a right one.

use super::frame::{CRC_START, crc, crc_step, from_ascii};

/// The shortest frame: unit, function, one byte, sum.
const SHORTEST: usize = 5;
/// The longest frame (Modbus over Serial Line V1.02, section 2.5.1).
const LONGEST: usize = 256;

/// A piece of what was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A whole frame: unit, function and data, without its sum.
    Frame(Vec<u8>),
    /// Bytes that are no frame.
    Noise(Vec<u8>),
}

/// Takes frames in RTU framing from the front of a buffer. While more may come, what could be the beginning of a frame stays;
/// `quiet` says that nothing more comes.
pub fn rtu(buffer: &mut Vec<u8>, quiet: bool) -> Vec<Heard> {
    let (mut heard, mut noise, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(rest) = buffer.get(at..).filter(|r| !r.is_empty()) {
        if let Some(length) = frame(rest) {
            flush(&mut noise, &mut heard);
            heard.push(Heard::Frame(rest.get(..length - 2).unwrap_or_default().to_vec()));
            at += length;
        } else if !quiet && rest.len() < LONGEST {
            break;
        } else {
            noise.extend(rest.first());
            at += 1;
        }
    }
    flush(&mut noise, &mut heard);
    buffer.drain(..at);
    heard
}

fn flush(noise: &mut Vec<u8>, heard: &mut Vec<Heard>) {
    if !noise.is_empty() {
        heard.push(Heard::Noise(std::mem::take(noise)));
    }
}

/// The length of the frame at the beginning of some bytes. The lengths requests and answers of its function have come first.
fn frame(bytes: &[u8]) -> Option<usize> {
    let right = |length: &usize| {
        let whole = bytes.get(..*length)?;
        let (body, sum) = whole.split_last_chunk::<2>()?;
        (crc(body) == *sum).then_some(*length)
    };
    let counted = |at: usize, before: usize| bytes.get(at).map(|n| before + usize::from(*n) + 2);
    let likely = match bytes.get(1)? {
        1..=4 => [Some(8), counted(2, 3)],
        5 | 6 => [Some(8), None],
        15 | 16 => [Some(8), counted(6, 7)],
        22 => [Some(10), None],
        23 => [counted(2, 3), counted(10, 11)],
        128.. => [Some(5), None],
        _ => [None, None],
    };
    let likely = likely.into_iter().flatten().find_map(|length| right(&length));
    likely.or_else(|| any_length(bytes))
}

/// The shortest frame of any length that has a right sum.
fn any_length(bytes: &[u8]) -> Option<usize> {
    let mut sum = CRC_START;
    for (i, byte) in bytes.iter().take(LONGEST - 2).enumerate() {
        sum = crc_step(sum, *byte);
        let length = i + 3;
        if length >= SHORTEST && bytes.get(i + 1..length) == Some(&sum.to_le_bytes()) {
            return Some(length);
        }
    }
    None
}

/// Takes lines in ASCII framing from the front of a buffer.
pub fn ascii(buffer: &mut Vec<u8>, quiet: bool) -> Vec<Heard> {
    let mut heard = Vec::new();
    while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
        let line: Vec<u8> = buffer.drain(..=end).collect();
        let begin = line.iter().rposition(|b| *b == b':').map_or(line.len(), |b| b + 1);
        let body = line.get(begin..).unwrap_or_default().trim_ascii_end();
        heard.push(from_ascii(body).map_or(Heard::Noise(line), Heard::Frame));
    }
    if !buffer.is_empty() && (quiet || buffer.len() > 2 * LONGEST + 8) {
        heard.push(Heard::Noise(std::mem::take(buffer)));
    }
    heard
}

/// A frame in words. Whether it is a request or an answer often shows only in its length.
pub fn words(frame: &[u8]) -> String {
    let [unit, function, data @ ..] = frame else { return "too short".to_owned() };
    let name = match function & 0x7f {
        1 => "read coils",
        2 => "read discrete inputs",
        3 => "read holding registers",
        4 => "read input registers",
        5 => "write coil",
        6 => "write register",
        15 => "write coils",
        16 => "write registers",
        22 => "mask write register",
        23 => "read and write registers",
        43 => "read device identification",
        _ => "function",
    };
    let pair = |at: usize| data.get(at..at + 2).map(|p| u16::from_be_bytes([p[0], p[1]]));
    let rest = match (function, data) {
        (128.., [code, ..]) => format!("exception {code} ({})", crate::error::exception(*code)),
        (1..=4, [_, _, _, _]) => format!("{} from {}", pair(2).unwrap_or(0), pair(0).unwrap_or(0)),
        (3 | 4 | 23, [count, values @ ..]) if usize::from(*count) == values.len() => {
            let (words, _) = values.as_chunks::<2>();
            let all: Vec<String> = words.iter().map(|w| u16::from_be_bytes(*w).to_string()).collect();
            format!("= {}", all.join(" "))
        }
        (1 | 2, [_, bits @ ..]) => format!("= bits {}", hex(bits)),
        (5 | 6, [_, _, _, _]) => format!("{} = {}", pair(0).unwrap_or(0), pair(2).unwrap_or(0)),
        (15 | 16, [_, _, _, _]) => format!("{} from {}, done", pair(2).unwrap_or(0), pair(0).unwrap_or(0)),
        (15 | 16, [_, _, _, _, _, values @ ..]) => {
            format!("{} from {} = {}", pair(2).unwrap_or(0), pair(0).unwrap_or(0), hex(values))
        }
        _ => hex(data),
    };
    format!("unit {unit} {function} {name} {rest}").trim_end().to_owned()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let all: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summed(body: &[u8]) -> Vec<u8> {
        [body, &crc(body)].concat()
    }

    #[test]
    fn frames_are_found_among_noise() {
        let (request, answer) = ([1, 3, 0, 0, 0, 2], [1, 3, 4, 0, 9, 0, 8]);
        let mut buffer = [&[0xff, 0x00][..], &summed(&request), &summed(&answer)].concat();
        // A beginning without an end waits for more.
        buffer.extend([1, 3]);
        let expected = [Heard::Frame(request.to_vec()), Heard::Frame(answer.to_vec())];
        let first = rtu(&mut buffer, true);
        assert_eq!(first[0], Heard::Noise(vec![0xff, 0x00]));
        assert_eq!(first[1..3], expected);
        assert_eq!(first[3], Heard::Noise(vec![1, 3]));
        let mut part = summed(&request);
        part.truncate(6);
        assert_eq!(rtu(&mut part, false), []);
        assert_eq!(part.len(), 6);
        let mut text = b"x\r\n:01030000000AF2\r\n:01".to_vec();
        let lines = ascii(&mut text, false);
        assert_eq!(lines, [Heard::Noise(b"x\r\n".to_vec()), Heard::Frame(vec![1, 3, 0, 0, 0, 10])]);
    }

    #[test]
    fn frames_in_words() {
        let cases: [(&[u8], &str); 5] = [
            (&[1, 3, 0, 16, 0, 2], "unit 1 3 read holding registers 2 from 16"),
            (&[1, 3, 4, 0, 9, 0, 8], "unit 1 3 read holding registers = 9 8"),
            (&[1, 0x83, 2], "unit 1 131 read holding registers exception 2 (illegal data address)"),
            (&[2, 6, 0, 1, 0, 3], "unit 2 6 write register 1 = 3"),
            (&[1], "too short"),
        ];
        for (frame, text) in cases {
            assert_eq!(words(frame), text);
        }
    }

    proptest! {
        /// Whatever is heard, nothing is lost, and it comes to an end.
        #[test]
        fn nothing_is_lost(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (mut buffer, mut again) = (bytes.clone(), Vec::new());
            for heard in rtu(&mut buffer, true) {
                match heard {
                    Heard::Frame(body) => { words(&body); again.extend(summed(&body)); }
                    Heard::Noise(noise) => again.extend(noise),
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(again, bytes);
        }
    }
}
