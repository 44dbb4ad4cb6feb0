//! Takes the compression off a layer or archive, whichever of the three it is: none, gzip or zstd.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Largest zstd window accepted, in bytes: what `zstd -20` uses. The decoder keeps that much in memory.
const MAX_WINDOW: u64 = 32 << 20;
/// How much is read from the source at a time.
const CHUNK: usize = 64 << 10;

/// A stream with its compression taken off.
pub(super) enum Decoder<R: Read> {
    Plain(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<Zstd<BufReader<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes: the media type is often wrong, the magic number never.
    pub(super) fn new(source: R) -> io::Result<Decoder<R>> {
        let mut source = BufReader::with_capacity(CHUNK, source);
        let start = source.fill_buf()?;
        Ok(if start.starts_with(&[0x1f, 0x8b]) {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(start) {
            Decoder::Zstd(Box::new(Zstd::new(source)))
        } else {
            Decoder::Plain(source)
        })
    }

    /// The source, read up to somewhere after the end of what was decoded.
    pub(super) fn into_inner(self) -> R {
        match self {
            Decoder::Plain(source) => source.into_inner(),
            Decoder::Gzip(decoder) => decoder.into_inner().into_inner(),
            Decoder::Zstd(zstd) => zstd.source.into_inner(),
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Decoder::Plain(_))
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(source) => source.read(buf),
            Decoder::Gzip(decoder) => decoder.read(buf),
            Decoder::Zstd(zstd) => zstd.read(buf),
        }
    }
}

/// Skippable frames (RFC 8878, 3.1.2) carry no content; eStargz and zstd:chunked use them for their indexes.
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// All frames of a zstd stream, one after the other.
pub(super) struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Zstd { source, decoder, in_frame: false }
    }

    /// Goes to the next frame; false at the end of the source.
    fn next_frame(&mut self) -> io::Result<bool> {
        use FrameDecoderError::ReadFrameHeaderError as Header;
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(Header(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !buf.is_empty() {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buf);
            }
            if self.in_frame && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            } else {
                self.in_frame = self.next_frame()?;
                if !self.in_frame {
                    break;
                }
            }
        }
        Ok(0)
    }
}
